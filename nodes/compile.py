"""Settings of torch.compile for the transformer's blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..wanvideo.errors import InputError
from ..wanvideo.transformer.program import CompileSettings
from . import sockets
from .base import CATEGORY, WanNode
from .host import io

BACKENDS = ["inductor", "cudagraphs"]
MODES = ["default", "max-autotune", "max-autotune-no-cudagraphs", "reduce-overhead"]


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "backend",
            options=BACKENDS,
            default=BACKENDS[0],
            tooltip="inductor writes fused kernels and needs Triton on a GPU, a C++ compiler on the "
            "CPU. cudagraphs is taken as inductor: CUDA graphs need weights that stay in place.",
        ),
        io.Boolean.Input(
            "fullgraph",
            default=False,
            tooltip="A part that cannot become one graph is an error instead of several graphs.",
        ),
        io.Combo.Input(
            "mode",
            options=MODES,
            default=MODES[0],
            tooltip="How long inductor looks for fast kernels; the max-autotune modes take minutes. "
            "Their CUDA graphs, and those of reduce-overhead, are left out.",
        ),
        io.Boolean.Input(
            "dynamic",
            default=False,
            tooltip="The number of tokens is always left open, so that another size needs no new "
            "compilation. On: every other size too.",
        ),
        io.Int.Input(
            "dynamo_cache_size_limit",
            default=64,
            min=0,
            max=1024,
            step=1,
            tooltip="Older name of dynamo_recompile_limit; the larger of the two counts.",
        ),
        io.Boolean.Input(
            "compile_transformer_blocks_only",
            default=True,
            tooltip="Only the blocks are compiled, either way: the rest takes hardly any time.",
        ),
        *_optional_inputs(),
    ]


def _optional_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "dynamo_recompile_limit",
            default=128,
            min=0,
            max=1024,
            step=1,
            optional=True,
            tooltip="torch._dynamo.config.recompile_limit during the run.",
        ),
        io.Boolean.Input(
            "force_parameter_static_shapes",
            default=False,
            optional=True,
            tooltip="Has no effect: the shapes of the weights are part of the compiled code anyway.",
        ),
        io.Boolean.Input(
            "allow_unmerged_lora_compile",
            default=False,
            optional=True,
            tooltip="Has no effect: LoRAs are applied to the weights, outside the compiled code.",
        ),
    ]


class WanVideoTorchCompileSettings(WanNode):
    """How the blocks are compiled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoTorchCompileSettings",
            display_name="WanVideo Torch Compile Settings",
            category=CATEGORY,
            description="Compiles the arithmetic of the transformer blocks with torch.compile, once for all "
            "blocks and for any number of frames. It is tried before the run; when it does not work here, "
            "the run goes on without it and says so.",
            inputs=_inputs(),
            outputs=[sockets.Compile.Output(display_name="torch_compile_args")],
        )

    @classmethod
    def run(cls, **inputs: Any) -> io.NodeOutput:
        """Collect."""
        return io.NodeOutput(_settings(inputs))


def as_compile_settings(value: object, *, input_name: str = "compile_args") -> CompileSettings | None:
    """Settings from a WANCOMPILEARGS socket: ours, the dict other packs make, or ``None``.

    Raises:
        InputError: something else.
    """
    if value is None:
        return None
    if isinstance(value, CompileSettings):
        return value
    if not isinstance(value, Mapping) or "backend" not in value:
        raise InputError(input_name, f"expected torch.compile settings, got {type(value).__name__}")
    return _settings(value)


def _settings(inputs: Mapping[str, Any]) -> CompileSettings:
    return CompileSettings(
        backend=inputs["backend"],
        mode=inputs.get("mode", MODES[0]),
        fullgraph=bool(inputs.get("fullgraph")),
        dynamic=bool(inputs.get("dynamic")),
        recompile_limit=int(inputs.get("dynamo_recompile_limit", 128)),
        cache_size_limit=int(inputs.get("dynamo_cache_size_limit", 64)),
    )


NODES: list[type[WanNode]] = [WanVideoTorchCompileSettings]
