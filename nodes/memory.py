"""How much of a model stays on the device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..wanvideo.errors import InputError
from . import sockets
from .base import CATEGORY, WanNode
from .host import io
from .memory_settings import (
    MEMORY_MODES,
    BlockSwapSettings,
    MemorySettings,
    VramManagementSettings,
    as_block_swap,
)
from .notices import warn
from .wan_model import WanVideoModel

EMPTY_VALUES = ("", None)  # what old graphs carry after their last widget


def warn_about(node: type[WanNode], settings: MemorySettings, *, blocks: int) -> None:
    """Say what the settings ask for and a model of so many blocks cannot give."""
    for notice in settings.notices(blocks):
        warn(node, f"block_swap_args: {notice}")


def _block_swap_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "blocks_to_swap",
            default=20,
            min=0,
            max=48,
            step=1,
            tooltip="At least so many blocks are streamed, more when the memory demands it. 0 asks "
            "for none. The 14B models have 40 blocks, 1.3B and 5B 30, LongCat 48.",
        ),
        io.Boolean.Input(
            "offload_img_emb",
            default=False,
            tooltip="Take the image embedder off the GPU when the run is prepared.",
        ),
        io.Boolean.Input(
            "offload_txt_emb",
            default=False,
            tooltip="Take the text and time embedders off the GPU when the run is prepared.",
        ),
        *_optional_block_swap_inputs(),
    ]


def _optional_block_swap_inputs() -> list[io.Input]:
    return [
        io.Boolean.Input(
            "use_non_blocking",
            default=False,
            optional=True,
            tooltip="Accepted for old graphs: blocks are always copied while others compute.",
        ),
        io.Int.Input(
            "vace_blocks_to_swap",
            default=0,
            min=0,
            max=15,
            step=1,
            optional=True,
            tooltip="The same for the blocks of a VACE module; the 14B module has 8, the 1.3B 15.",
        ),
        io.Int.Input(
            "prefetch_blocks",
            default=0,
            min=0,
            max=40,
            step=1,
            optional=True,
            tooltip="Blocks on their way while one computes. 0 and 1 are one, which hides the copies "
            "at video sizes; each further one takes the memory of a block.",
        ),
        io.Boolean.Input(
            "block_swap_debug",
            default=False,
            optional=True,
            tooltip="Log the plan and what streaming did in each run.",
        ),
        io.Combo.Input(
            "memory_mode",
            options=list(MEMORY_MODES),
            default=MEMORY_MODES[0],
            optional=True,
            advanced=True,
            tooltip="auto: the plan decides, blocks_to_swap is its lower bound. resident: all blocks "
            "stay on the GPU. stream: none does.",
        ),
    ]


class WanVideoBlockSwap(WanNode):
    """A lower bound for the number of streamed blocks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoBlockSwap",
            display_name="WanVideo Block Swap",
            category=CATEGORY,
            description="Streams blocks of the model through a small part of the GPU memory instead of "
            "keeping them there. Without this node the number is planned from the free memory.",
            inputs=_block_swap_inputs(),
            outputs=[sockets.BlockSwap.Output(display_name="block_swap_args")],
        )

    @classmethod
    def validate_inputs(cls, memory_mode: object = MEMORY_MODES[0]) -> bool | str:
        """Accept the empty value that graphs of the predecessor may have after their last widget."""
        if memory_mode in (*MEMORY_MODES, *EMPTY_VALUES) or not isinstance(memory_mode, str):
            return True
        return f"memory_mode: {memory_mode!r} is not one of {', '.join(MEMORY_MODES)}"

    @classmethod
    def run(
        cls, *, use_non_blocking: bool = False, memory_mode: str | None = None, **inputs: Any
    ) -> io.NodeOutput:
        """Collect."""
        del use_non_blocking
        mode = MEMORY_MODES[MEMORY_MODES.index(memory_mode) if memory_mode in MEMORY_MODES else 0]
        return io.NodeOutput(BlockSwapSettings(memory_mode=mode, **inputs))


class WanVideoSetBlockSwap(WanNode):
    """Other block swap settings for a loaded model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSetBlockSwap",
            display_name="WanVideo Set BlockSwap",
            category=CATEGORY,
            description="Changes the block swap of a model without loading it again; the next run uses it.",
            inputs=[
                sockets.Model.Input("model"),
                sockets.BlockSwap.Input(
                    "block_swap_args", optional=True, tooltip="Nothing connected: planned automatically."
                ),
            ],
            outputs=[sockets.Model.Output(display_name="model")],
        )

    @classmethod
    def run(cls, model: object, block_swap_args: object = None) -> io.NodeOutput:
        """The same weights with other settings."""
        if not isinstance(model, WanVideoModel):
            raise InputError("model", f"expected a loaded Wan model, got {type(model).__name__}")
        settings = MemorySettings(
            as_block_swap(block_swap_args), stays_on_device=model.memory.stays_on_device
        )
        warn_about(cls, settings, blocks=len(model.transformer.blocks))
        return io.NodeOutput(replace(model, memory=settings))


class WanVideoVRAMManagement(WanNode):
    """A lower bound for the fraction of streamed blocks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoVRAMManagement",
            display_name="WanVideo VRAM Management",
            category=CATEGORY,
            description="Block swap by fraction instead of number; with both connected the larger counts.",
            inputs=[
                io.Float.Input(
                    "offload_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="At least this fraction of the blocks is streamed; 1 is all, 0 asks for none.",
                )
            ],
            outputs=[sockets.VramManagement.Output(display_name="vram_management_args")],
        )

    @classmethod
    def run(cls, *, offload_percent: float) -> io.NodeOutput:
        """Collect."""
        return io.NodeOutput(VramManagementSettings(offload_percent))


NODES: list[type[WanNode]] = [WanVideoBlockSwap, WanVideoSetBlockSwap, WanVideoVRAMManagement]
