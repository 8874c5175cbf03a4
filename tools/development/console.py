"""What the command prints, and how it runs other programs."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HEARTBEAT = 20.0  # seconds between signs of life where the line can not be rewritten
TAIL = 25  # lines of a failed program's output that are shown


class DevError(Exception):
    """A step failed; the message says which, why, and what to do."""


def section(title: str) -> None:
    """Print the heading of a step."""
    print(f"\n== {title}", flush=True)


def say(text: str) -> None:
    """Print one line of a step."""
    print(f"   {text}", flush=True)


class StatusLine:
    """One line that is rewritten on a terminal; elsewhere only finished lines are printed."""

    def __init__(self) -> None:
        self.rewrites = sys.stdout.isatty()
        self._shown = 0

    def update(self, text: str) -> None:
        """Show `text` in place of the last update."""
        if self.rewrites:
            shown = text[:110]
            print("\r   " + shown.ljust(self._shown), end="", flush=True)
            self._shown = len(shown)

    def finish(self, text: str) -> None:
        """Print `text` as a line that stays."""
        if self._shown:
            print("\r" + " " * (self._shown + 3) + "\r", end="")
            self._shown = 0
        say(text)


def duration(seconds: float) -> str:
    """Seconds as people read them: "8.3 s" or "3 min 12 s"."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for a child process: ours without what would change its Python, plus `extra`."""
    ours = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    return {**ours, "PYTHONUNBUFFERED": "1", **(extra or {})}


class Heartbeat:
    """Says every so often that a quiet program is still at work, where no line can be rewritten."""

    def __init__(self, started: float) -> None:
        self.line = ""
        self._started = started
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        if not sys.stdout.isatty():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT):
            say(f"[{duration(time.monotonic() - self._started)}] {self.line[:90]}")


def run_logged(command: Sequence[str | Path], *, log: Path, failure: str, hint: str = "") -> None:
    """Run a long program, keep its output in `log`, and show signs of life.

    Raises:
        DevError: `failure`, the end of the output and `hint`, when the program returns an error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    status = StatusLine()
    lines: list[str] = []
    with (
        log.open("w", encoding="utf-8") as record,
        Heartbeat(started) as heartbeat,
        _start(command) as process,
    ):
        try:
            for raw in process.stdout or ():
                record.write(raw)
                line = raw.strip()
                lines = [*lines[1 - TAIL :], line]
                if line and not line.startswith("WARNING:"):  # in the log; here only what is being done
                    heartbeat.line = line
                    status.update(f"[{duration(time.monotonic() - started)}] {line}")
        except KeyboardInterrupt:
            process.terminate()
            raise
    if process.returncode:
        status.finish("failed")
        ending = "\n".join(f"     {line}" for line in lines)
        advice = f"\n{hint}" if hint else ""
        raise DevError(f"{failure} (exit status {process.returncode}):\n{ending}\nFull output: {log}{advice}")
    status.finish(f"done in {duration(time.monotonic() - started)}")


def _start(command: Sequence[str | Path]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=child_environment(),
    )
