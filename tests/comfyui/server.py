"""One real ComfyUI server for the tests: the pack, helper nodes and tiny random models on the CPU."""

import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from comfyui_wanvideo.tools.development.client import Client, Event, NodeError, OutputFile, Result
from comfyui_wanvideo.tools.development.layout import PACK_NAME
from comfyui_wanvideo.tools.development.server import NO_DOWNLOADS, Server, ServerPlan, free_port
from safetensors.torch import load_file, save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
HELPERS = "helper_nodes"
KEPT = "kept"
RUN_SECONDS = 180.0
Link = list[Any]  # [node id, output index]


@dataclass(frozen=True)
class Kept:
    """What a socket carried: tensors and plain values by dotted path ("samples", "0.pooled_output")."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    @property
    def tensor(self) -> Tensor:
        """The only tensor.

        Raises:
            ValueError: there are none or several.
        """
        (tensor,) = self.tensors.values()
        return tensor


@dataclass(frozen=True)
class Run:
    """One run: how it ended, what it made, what it said."""

    result: Result
    log: str
    kept: Mapping[str, Kept] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """ "success", "error", "interrupted", or "refused" by validation."""
        return self.result.status

    @property
    def errors(self) -> tuple[NodeError, ...]:
        """Errors of validation and execution, with their nodes."""
        return self.result.errors

    @property
    def message(self) -> str:
        """All error messages, one a line."""
        return "\n".join(error.message for error in self.errors)

    def progress(self, node: str) -> list[tuple[int, int]]:
        """The (value, maximum) pairs that a node reported, in order."""
        return [
            (int(event.content["value"]), int(event.content["max"]))
            for event in self.result.events
            if event.name == "progress" and str(event.content["node"]) == node
        ]

    def executed(self) -> list[str]:
        """The ids of the nodes that ran, in order; those taken from the cache are not among them."""
        return [str(event.content["node"]) for event in self.result.events if event.name == "executing"]


class Comfy:
    """A running server and what tests do with it.

    Args:
        base: a fresh folder, which becomes ComfyUI's base directory.
        comfyui: the ComfyUI folder.
        arguments: more ComfyUI arguments.
    """

    def __init__(self, base: Path, comfyui: Path, *, arguments: tuple[str, ...] = ()) -> None:
        self.base = base
        self._info: dict[str, Any] | None = None
        plan = ServerPlan(
            python=Path(sys.executable),
            comfyui=comfyui,
            base=base,
            packs={PACK_NAME: ROOT, HELPERS: Path(__file__).parent / HELPERS},
            port=free_port(),
            log=base / "server.log",
            arguments=("--cpu", *arguments),
            variables={**NO_DOWNLOADS, "CXX": "no-such-compiler"},  # compiling takes half a minute
        )
        self.server = Server(plan)
        self.client = Client(plan.address)

    @property
    def url(self) -> str:
        """The address of the frontend."""
        return f"http://{self.server.plan.address}"

    def object_info(self) -> dict[str, Any]:
        """Every node class the server knows, by id; asked once."""
        if self._info is None:
            self._info = self.client.object_info()
        return self._info

    def models(self, folder: str) -> list[str]:
        """The model files that ComfyUI lists in a folder, e.g. "vae"."""
        return self.client.get(f"/models/{folder}")

    def run(
        self,
        prompt: Mapping[str, Mapping[str, Any]],
        *,
        keep: Mapping[str, Link] | None = None,
        on_event: Callable[[Event], None] | None = None,
        seconds: float = RUN_SECONDS,
    ) -> Run:
        """Run nodes in API format to their end.

        Args:
            prompt: node id -> {"class_type", "inputs"}.
            keep: name -> link; what flows there is in the answer's `kept` under that name.
            on_event: called with every message, e.g. to interrupt at a step.
            seconds: the longest it may take.
        """
        files = {name: uuid.uuid4().hex for name in keep or {}}
        extra = {
            f"keep {name}": {"class_type": "TestKeep", "inputs": {"value": link, "file": files[name]}}
            for name, link in (keep or {}).items()
        }
        offset = self.server.log_size()
        result = self.client.execute({**prompt, **extra}, on_event=on_event, seconds=seconds)
        kept = {name: found for name, file in files.items() if (found := self._kept(file)) is not None}
        return Run(result, self.server.log_since(offset), kept)

    def put_tensors(self, **tensors: Tensor) -> dict[str, Any]:
        """A node that brings tensors into a graph: output 0 is LATENT (all but "image"), 1 is IMAGE."""
        file = uuid.uuid4().hex
        folder = self.base / "input" / KEPT
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / f"{file}.safetensors"
        )
        return {"class_type": "TestTensors", "inputs": {"file": file}}

    def output(self, file: OutputFile) -> Path:
        """Where a file lies that a node reported."""
        return self.base / file.type / file.subfolder / file.filename

    def free(self) -> None:
        """Unload all models and forget cached results; returns when the memory has settled."""
        self.client.free()
        before, calm = self.resident_bytes(), 0
        while calm < 4:
            time.sleep(0.25)
            now = self.resident_bytes()
            calm = calm + 1 if abs(now - before) < 1 << 20 else 0
            before = now

    def resident_bytes(self) -> int:
        """The server process's memory."""
        return psutil.Process(self.server.pid).memory_info().rss

    def _kept(self, file: str) -> Kept | None:
        path = self.base / "output" / KEPT / f"{file}.safetensors"
        if not path.exists():
            return None
        return Kept(load_file(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))


def write_tiny_models(folder: Path) -> None:
    """Fill `folder` with tiny random models in ComfyUI's model folders.

    Raises:
        RuntimeError: the generator failed.
    """
    script = ROOT / "tools" / "tiny_checkpoints.py"
    done = subprocess.run([sys.executable, script, "--out", folder], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(f"{script.name} failed:\n{done.stdout}{done.stderr}")
