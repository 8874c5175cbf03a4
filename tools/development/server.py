"""Start a real ComfyUI server with chosen packs in a base directory of its own, and stop it."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .console import DevError, child_environment
from .layout import link_directory

FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")
NO_DOWNLOADS = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
START_SECONDS = 300.0


@dataclass(frozen=True)
class ServerPlan:
    """What to start.

    Args:
        python: the interpreter with ComfyUI's requirements.
        comfyui: the ComfyUI folder; nothing is written there.
        base: the base directory; its custom_nodes hold nothing but `packs`.
        packs: folder name in custom_nodes -> the pack's folder, linked.
        port: the port on the loopback interface.
        log: where the server's output goes; None: to the terminal.
        arguments: more arguments for ComfyUI.
        variables: more environment variables.
    """

    python: Path
    comfyui: Path
    base: Path
    packs: Mapping[str, Path]
    port: int
    log: Path | None = None
    arguments: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def command(self) -> list[str]:
        """The program and its arguments."""
        database = (self.base / "user" / "comfyui.db").as_posix()
        return [
            str(self.python),
            str(self.comfyui / "main.py"),
            "--base-directory",
            str(self.base),
            "--database-url",
            f"sqlite:///{database}",
            "--port",
            str(self.port),
            "--disable-auto-launch",
            "--disable-api-nodes",
            *self.arguments,
        ]


class Server:
    """A running ComfyUI; a context manager that stops it."""

    def __init__(self, plan: ServerPlan) -> None:
        self.plan = plan
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            DevError: the server was not started.
        """
        if self._process is None:
            raise DevError("the server is not running")
        return self._process.pid

    def start(self, *, seconds: float = START_SECONDS) -> None:
        """Start the process and wait until it answers.

        Raises:
            DevError: it ended or did not answer in time; the message holds the end of its log.
        """
        self._process = _launch(self.plan)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.is_alive():
                raise DevError(f"ComfyUI ended while starting.\n{self.log_tail()}")
            if _answers(f"http://{self.plan.address}/system_stats"):
                return
            time.sleep(0.3)
        self.stop()
        raise DevError(f"ComfyUI did not answer within {seconds:.0f} s.\n{self.log_tail()}")

    def wait(self) -> int:
        """Wait until the server ends by itself; returns its exit status."""
        return self._process.wait() if self._process else 0

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the process: politely, then by force."""
        process = self._process
        if process is None:
            return
        polite = signal.SIGTERM if os.name == "nt" else signal.SIGINT
        for stop, seconds in (
            (lambda: process.send_signal(polite), 10),
            (process.terminate, 5),
            (process.kill, 10),
        ):
            if process.poll() is not None:
                return
            stop()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue

    def log_since(self, offset: int = 0) -> str:
        """The log from a byte offset on ("" when it goes to the terminal)."""
        log = self.plan.log
        if log is None or not log.exists():
            return ""
        with log.open("rb") as file:
            file.seek(offset)
            return file.read().decode("utf-8", errors="replace")

    def log_size(self) -> int:
        """The log's length in bytes now: a mark for `log_since`."""
        log = self.plan.log
        return log.stat().st_size if log is not None and log.exists() else 0

    def log_tail(self, lines: int = 25) -> str:
        """The last lines of the log, and where the rest is."""
        if self.plan.log is None:
            return ""
        shown = [line for line in self.log_since().splitlines() if line.strip()][-lines:]
        return "\n".join([*(f"     {line}" for line in shown), f"Full log: {self.plan.log}"])

    def import_failures(self) -> list[str]:
        """Log lines that say that a custom node pack could not be imported."""
        marks = ("Cannot import ", "IMPORT FAILED")
        return [line for line in self.log_since().splitlines() if any(mark in line for mark in marks)]


def free_port() -> int:
    """A port on the loopback interface that nobody listens on at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _launch(plan: ServerPlan) -> "subprocess.Popen[bytes]":
    for folder in FOLDERS:
        (plan.base / folder).mkdir(parents=True, exist_ok=True)
    for name, folder in plan.packs.items():
        link_directory(plan.base / "custom_nodes" / name, folder)
    environment = child_environment(plan.variables)
    if plan.log is None:
        return subprocess.Popen(plan.command, cwd=plan.base, env=environment, stdin=subprocess.DEVNULL)
    plan.log.parent.mkdir(parents=True, exist_ok=True)
    with plan.log.open("wb") as log:
        return subprocess.Popen(
            plan.command,
            cwd=plan.base,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the command, which then stops the server
        )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
