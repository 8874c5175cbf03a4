"""What the memory nodes ask for, independent of any model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from ..wanvideo.errors import InputError
from ..wanvideo.weights.plan import Mode

MEMORY_MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class BlockSwapSettings:
    """Value of BLOCKSWAPARGS.

    Args:
        blocks_to_swap: at least so many blocks are streamed; more when the memory demands it.
        offload_img_emb: the image embedder leaves the device once the run is prepared.
        offload_txt_emb: the text and time embedders do.
        vace_blocks_to_swap: the same as `blocks_to_swap` for the blocks of a VACE module.
        prefetch_blocks: blocks that may be on their way while one computes.
        block_swap_debug: log the plan and what streaming did in each run.
        memory_mode: "auto" plans, "resident" keeps all blocks on the device, "stream" none.
    """

    blocks_to_swap: int = 0
    offload_img_emb: bool = False
    offload_txt_emb: bool = False
    vace_blocks_to_swap: int = 0
    prefetch_blocks: int = 0
    block_swap_debug: bool = False
    memory_mode: Mode = "auto"

    @property
    def slots(self) -> int:
        """Places for blocks on the device: the one that computes and those on their way, at least one."""
        return max(self.prefetch_blocks, 1) + 1


@dataclass(frozen=True)
class VramManagementSettings:
    """Value of VRAM_MANAGEMENTARGS.

    Args:
        offload_percent: at least this fraction of the blocks is streamed, 0 to 1.
    """

    offload_percent: float = 1.0

    def streamed(self, blocks: int) -> int:
        """Blocks that are streamed of so many."""
        return math.ceil(self.offload_percent * blocks)


@dataclass(frozen=True)
class MemorySettings:
    """How one model's weights are kept; nothing connected means that the plan decides.

    Args:
        block_swap: of WanVideo Block Swap.
        vram_management: of WanVideo VRAM Management.
        stays_on_device: the weights that are resident stay on the device between runs.
    """

    block_swap: BlockSwapSettings = BlockSwapSettings()
    vram_management: VramManagementSettings = VramManagementSettings(0.0)
    stays_on_device: bool = False

    @property
    def mode(self) -> Mode:
        """What the user chose."""
        return self.block_swap.memory_mode

    def min_streamed(self, blocks: int, side_blocks: int = 0) -> int:
        """Blocks that are streamed in any case: the larger of the two demands, at most all.

        Args:
            blocks: of the model.
            side_blocks: of its side networks (VACE).
        """
        if self.mode == "resident":
            return 0
        if self.mode == "stream":
            return blocks + side_blocks
        own = max(self.block_swap.blocks_to_swap, self.vram_management.streamed(blocks))
        beside = max(self.block_swap.vace_blocks_to_swap, self.vram_management.streamed(side_blocks))
        return min(own, blocks) + min(beside, side_blocks)

    def notices(self, blocks: int) -> list[str]:
        """Sentences on what cannot be meant literally for a model of so many blocks."""
        wanted, percent = self.block_swap.blocks_to_swap, self.vram_management.offload_percent
        by_percent = self.vram_management.streamed(blocks)
        if self.mode == "resident" and (wanted or by_percent):
            return [
                f"memory_mode resident keeps all {blocks} blocks on the device: blocks_to_swap is not used"
            ]
        found: list[str] = []
        if wanted > blocks:
            found.append(
                f"blocks_to_swap is {wanted}, the model has {blocks} blocks: all {blocks} are streamed"
            )
        if wanted and by_percent:
            found.append(
                f"blocks_to_swap asks for {min(wanted, blocks)} streamed blocks, offload_percent {percent:g} "
                f"for {by_percent}: the larger number counts"
            )
        return found


def as_block_swap(value: object, *, input_name: str = "block_swap_args") -> BlockSwapSettings:
    """Settings from a BLOCKSWAPARGS socket: ours, the dict other packs make, or ``None`` for automatic.

    Raises:
        InputError: something else.
    """
    if value is None:
        return BlockSwapSettings()
    if isinstance(value, BlockSwapSettings):
        return value
    if not isinstance(value, Mapping) or "blocks_to_swap" not in value:
        raise InputError(input_name, f"expected block swap settings, got {type(value).__name__}")
    return BlockSwapSettings(
        blocks_to_swap=int(value["blocks_to_swap"] or 0),
        offload_img_emb=bool(value.get("offload_img_emb")),
        offload_txt_emb=bool(value.get("offload_txt_emb")),
        vace_blocks_to_swap=int(value.get("vace_blocks_to_swap") or 0),
        prefetch_blocks=int(value.get("prefetch_blocks") or 0),
        block_swap_debug=bool(value.get("block_swap_debug")),
    )


def as_vram_management(value: object, *, input_name: str = "vram_management_args") -> VramManagementSettings:
    """Settings from a VRAM_MANAGEMENTARGS socket: ours, the dict other packs make, or ``None``.

    Raises:
        InputError: something else.
    """
    if value is None:
        return VramManagementSettings(0.0)
    if isinstance(value, VramManagementSettings):
        return value
    if not isinstance(value, Mapping) or "offload_percent" not in value:
        raise InputError(input_name, f"expected VRAM management settings, got {type(value).__name__}")
    return VramManagementSettings(float(value["offload_percent"]))
