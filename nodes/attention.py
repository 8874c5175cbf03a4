"""How the attention of a loaded model is computed."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..wanvideo.attention.radial import RadialSettings
from ..wanvideo.attention.registry import AUTO, RADIAL, ULTRAVICO, check_available
from ..wanvideo.attention.run import AttentionOverride
from ..wanvideo.errors import InputError
from . import sockets
from .base import CATEGORY, WanNode
from .host import comfy_attention, io
from .notices import warn
from .wan_model import WanVideoModel

log = logging.getLogger(__name__)

HOST_BACKENDS = {"comfy": comfy_attention}
ATTENTION_MODES = [
    "sdpa",
    "flash_attn_2",
    "flash_attn_3",
    "sageattn",
    "sageattn_3",
    RADIAL,
    "sageattn_compiled",
    ULTRAVICO,
    "comfy",
    AUTO,
    "sageattn_varlen",
]
DENSE_MODES = ["sdpa", "flash_attn_2", "flash_attn_3", "sageattn", "sparse_sage_attention", AUTO]
BLOCK_SIZES = [128, 64]
MODE_TOOLTIP = (
    "How attention is computed. sdpa is PyTorch's and always there; comfy is what ComfyUI was started with; "
    "auto takes the fastest library that is installed and gives the right numbers on this GPU. "
    "sageattn_compiled is sageattn: attention stands outside the compiled parts anyway. "
    "sageattn_3 (4 bit, RTX 50 series) is used in every step."
)


def attention_mode_input(*, optional: bool = False) -> io.Combo.Input:
    """The list of attention modes."""
    return io.Combo.Input(
        "attention_mode", options=ATTENTION_MODES, default="sdpa", tooltip=MODE_TOOLTIP, optional=optional
    )


def attention_problem(mode: object, *, input_name: str = "attention_mode") -> str | None:
    """What is wrong with an attention mode, found without importing a library.

    Args:
        mode: value of an input; anything but a string is not known yet.
        input_name: the input to name.
    """
    if not isinstance(mode, str):
        return None
    try:
        check_available(mode, host_backends=HOST_BACKENDS, input_name=input_name)
    except InputError as error:
        return str(error)
    return None


class WanVideoSetAttentionModeOverride(WanNode):
    """Another attention mode for a range of steps and, if given, some blocks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSetAttentionModeOverride",
            display_name="WanVideo Set Attention Mode Override",
            category=CATEGORY,
            description="Uses another attention mode in some steps, without loading the model again. "
            "Cross-attention keeps the loader's.",
            inputs=[
                sockets.Model.Input("model"),
                attention_mode_input(),
                io.Int.Input("start_step", default=0, min=0, max=10000, tooltip="First step that uses it."),
                io.Int.Input(
                    "end_step", default=10000, min=1, max=10000, tooltip="First step that no longer uses it."
                ),
                io.Boolean.Input("verbose", default=False, tooltip="Log which steps and blocks use it."),
                io.Int.Input(
                    "blocks", optional=True, force_input=True, tooltip="Block numbers; all without."
                ),
            ],
            outputs=[sockets.Model.Output(display_name="model")],
        )

    @classmethod
    def validate_inputs(cls, attention_mode: object = None) -> bool | str:
        """The library must be installed."""
        return attention_problem(attention_mode) or True

    @classmethod
    def run(
        cls,
        model: WanVideoModel,
        attention_mode: str,
        start_step: int,
        end_step: int,
        verbose: bool,
        blocks: int | list[int] | None = None,
    ) -> io.NodeOutput:
        """Add the override to the model."""
        if start_step >= end_step:
            raise InputError("start_step", f"{start_step} is not below end_step {end_step}")
        check_available(attention_mode, host_backends=HOST_BACKENDS)
        chosen = None
        if blocks is not None:
            chosen = frozenset([blocks] if isinstance(blocks, int) else [int(block) for block in blocks])
        if verbose:
            log.info(
                "attention %s in steps %d to %d, blocks %s",
                attention_mode,
                start_step,
                end_step - 1,
                "all" if chosen is None else ", ".join(map(str, sorted(chosen))),
            )
        override = AttentionOverride(attention_mode, start_step, end_step, chosen)
        return io.NodeOutput(replace(model, overrides=(*model.overrides, override)))


class WanVideoSetRadialAttention(WanNode):
    """Settings of radial attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSetRadialAttention",
            display_name="WanVideo Set Radial Attention",
            category=CATEGORY,
            description="Settings of radial attention: a token sees near frames whole and far frames around "
            "its own place only. Takes effect where the attention mode is radial_sage_attention. Any size "
            "of video will do.",
            inputs=[
                sockets.Model.Input("model"),
                io.Combo.Input(
                    "dense_attention_mode",
                    options=DENSE_MODES,
                    default="sageattn",
                    tooltip="For the blocks and steps below that see everything, and for the text.",
                ),
                io.Int.Input(
                    "dense_blocks",
                    default=1,
                    min=0,
                    max=40,
                    step=1,
                    tooltip="How many of the first blocks see everything, or a WanVideo Block List.",
                ),
                io.Int.Input(
                    "dense_vace_blocks",
                    default=1,
                    min=0,
                    max=15,
                    step=1,
                    tooltip="The same for the blocks of a VACE module.",
                ),
                io.Int.Input(
                    "dense_timesteps",
                    default=2,
                    min=0,
                    max=100,
                    step=1,
                    tooltip="How many of the first steps see everything.",
                ),
                io.Float.Input(
                    "decay_factor",
                    default=0.2,
                    min=0,
                    max=1,
                    step=0.01,
                    tooltip="How wide the windows between frames two or more apart are; less is faster.",
                ),
                io.Combo.Input(
                    "block_size",
                    options=BLOCK_SIZES,
                    default=128,
                    tooltip="Tokens per side of a block of the mask. 64 follows the windows more closely.",
                ),
            ],
            outputs=[sockets.Model.Output(display_name="model")],
        )

    @classmethod
    def validate_inputs(cls, dense_attention_mode: object = None) -> bool | str:
        """The library must be installed."""
        return attention_problem(dense_attention_mode, input_name="dense_attention_mode") or True

    @classmethod
    def run(
        cls,
        model: WanVideoModel,
        dense_attention_mode: str,
        dense_blocks: int | list[int],
        dense_vace_blocks: int | list[int],
        dense_timesteps: int,
        decay_factor: float,
        block_size: int | str,
    ) -> io.NodeOutput:
        """Put the settings on the model."""
        check_available(dense_attention_mode, host_backends=HOST_BACKENDS, input_name="dense_attention_mode")
        settings = RadialSettings(
            dense_mode=dense_attention_mode,
            dense_blocks=_blocks(dense_blocks),
            dense_vace_blocks=_blocks(dense_vace_blocks),
            dense_steps=dense_timesteps,
            decay_factor=decay_factor,
            block_size=int(block_size),
        )
        _warn_unless_used(cls, model, RADIAL)
        return io.NodeOutput(replace(model, radial=settings))


class WanVideoUltraVicoSettings(WanNode):
    """Settings of UltraViCo."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoUltraVicoSettings",
            display_name="WanVideo UltraVico Settings",
            category=CATEGORY,
            description="For videos longer than the model was trained on (81 frames): attention to frames "
            "more than half that length away is weakened. Takes effect where the attention mode is "
            "sageattn_ultravico.",
            inputs=[
                sockets.Model.Input("model"),
                io.Float.Input(
                    "alpha",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Factor on the scores of far frames; 1 leaves them as they are.",
                ),
            ],
            outputs=[sockets.Model.Output(display_name="model")],
        )

    @classmethod
    def run(cls, model: WanVideoModel, alpha: float) -> io.NodeOutput:
        """Put the setting on the model."""
        _warn_unless_used(cls, model, ULTRAVICO)
        return io.NodeOutput(replace(model, ultravico_alpha=alpha))


def _blocks(blocks: int | list[int]) -> frozenset[int]:
    """The first so many blocks, or the listed ones."""
    return frozenset(range(blocks) if isinstance(blocks, int) else (int(block) for block in blocks))


def _warn_unless_used(node: type[WanNode], model: WanVideoModel, mode: str) -> None:
    if mode not in (model.attention_mode, *(override.mode for override in model.overrides)):
        warn(
            node,
            f"the model's attention_mode is {model.attention_mode}, so this has no effect unless an "
            f"attention override after it chooses {mode}; choose {mode} in the model loader",
        )


NODES: list[type[WanNode]] = [
    WanVideoSetAttentionModeOverride,
    WanVideoSetRadialAttention,
    WanVideoUltraVicoSettings,
]
