"""Nodes for tests: write a value's tensors to a file, and bring tensors from a file into a graph.

A custom node pack of its own, loaded by the test server beside the pack.
"""

# ComfyUI calls execute() with exactly the declared inputs, not with what its base class could take.
# pyright: reportIncompatibleMethodOverride=false

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import load_file, save_file

KEPT = "kept"  # folder below ComfyUI's output and input folders


class TestKeep(io.ComfyNode):
    """Writes every tensor inside a value to KEPT/<file>.safetensors, and the rest to KEPT/<file>.json."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestKeep",
            category="test",
            inputs=[io.AnyType.Input("value"), io.String.Input("file")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, value: Any, file: str) -> io.NodeOutput:
        folder = Path(folder_paths.get_output_directory()) / KEPT
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, torch.Tensor] = {}
        rest: dict[str, Any] = {}
        _flatten(value, "", tensors, rest)
        own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_file(own, str(folder / f"{file}.safetensors"))
        (folder / f"{file}.json").write_text(json.dumps(rest), encoding="utf-8")
        return io.NodeOutput()


class TestTensors(io.ComfyNode):
    """Reads KEPT/<file>.safetensors from the input folder: a latent of its keys, and "image" as IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestTensors",
            category="test",
            inputs=[io.String.Input("file")],
            outputs=[io.Latent.Output(), io.Image.Output()],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        tensors = load_file(Path(folder_paths.get_input_directory()) / KEPT / f"{file}.safetensors")
        image = tensors.pop("image", torch.zeros(1, 8, 8, 3))
        return io.NodeOutput(tensors, image)


class TestConditioning(io.ComfyNode):
    """A LATENT's tensor ``[1, L, width]`` as CONDITIONING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TestConditioning",
            category="test",
            inputs=[io.Latent.Input("samples")],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any]) -> io.NodeOutput:
        return io.NodeOutput([[samples["samples"], {}]])


def _flatten(value: Any, path: str, tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> None:
    """Collect tensors and plain values by dotted path; everything else by the name of its class."""
    if isinstance(value, torch.Tensor):
        tensors[path or "value"] = value
    elif isinstance(value, Mapping):
        _flatten_items(value.items(), path, tensors, rest)
    elif isinstance(value, list | tuple):
        _flatten_items(enumerate(value), path, tensors, rest)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        _flatten_items([(name, getattr(value, name)) for name in names], path, tensors, rest)
    elif isinstance(value, str | int | float | bool | None):
        rest[path or "value"] = value
    else:
        rest[path or "value"] = f"<{type(value).__name__}>"


def _flatten_items(items: Any, path: str, tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> None:
    for name, item in items:
        _flatten(item, f"{path}.{name}" if path else str(name), tensors, rest)


class TestExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TestKeep, TestTensors, TestConditioning]


async def comfy_entrypoint() -> TestExtension:
    return TestExtension()
