"""Rotary position embedding over frame, row and column (RoFormer, arXiv:2104.09864, as Wan splits it).

The 128 channels of a head are split into 44 temporal, 42 vertical and 42 horizontal ones; each axis
has its own frequencies; pairs are adjacent channels. Angles are computed in float64 on the CPU from
positions that may be negative, fractional or offset; rotations happen in float32 (``comfy``) or
float64 (``default``). ``comfy_chunked`` rotates like ``comfy``; it asks for finer row chunks of the block
(``memory.row_chunks_for``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .chunking import pieces
from .config import HEAD_WIDTH

ROPE_FUNCTIONS = ("default", "comfy", "comfy_chunked")
THETA = 10_000.0
RIFLEX_SHARE = 0.9  # of one period over the whole clip, arXiv:2502.15894


@dataclass(frozen=True)
class RopeOptions:
    """How positions become rotations.

    Args:
        function: one of :data:`ROPE_FUNCTIONS`; all give the same result within rounding.
        riflex_index: 1-based temporal frequency slowed to 0.9 periods over the clip; 0 is off.
        riflex_frames: latent frames of the whole clip, needed when ``riflex_index`` is set.
        ntk_scale: factors on theta for frame, row and column (CineScale); 1 changes nothing.
    """

    function: str = "comfy"
    riflex_index: int = 0
    riflex_frames: int = 0
    ntk_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class RopeTable:
    """The turns of a sequence, and the function that applies them.

    Args:
        turns: ``[L, K / 2, 2]`` float32, cosine and sine of every token's angles, for heads of K channels.
        dtype: of the rotation.
    """

    turns: Tensor
    dtype: torch.dtype = torch.float32

    @property
    def head_width(self) -> int:
        """Channels of the heads it rotates."""
        return 2 * self.turns.shape[-2]

    def rows(self, start: int, stop: int) -> RopeTable:
        """The table of tokens ``start`` to ``stop``."""
        return RopeTable(self.turns[start:stop], self.dtype)

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate queries or keys ``[..., L, N, K]``; same dtype. May overwrite ``x``."""
        if torch.compiler.is_compiling():
            return _rotated(x, self.turns.to(self.dtype))
        for part in pieces(x.shape[-3]):
            _rotate_in_place(x[..., part, :, :], self.turns[part].to(self.dtype))
        return x


def grid_positions(grid: tuple[int, int, int], offset: tuple[float, float, float] = (0, 0, 0)) -> Tensor:
    """Positions of a token grid in sequence order (frame slowest, column fastest).

    Args:
        grid: frames, rows, columns of tokens.
        offset: added to frame, row, column; may be negative or fractional.

    Returns:
        ``[L, 3]`` float64 on the CPU.
    """
    axes = [torch.arange(n, dtype=torch.float64, device="cpu") + o for n, o in zip(grid, offset, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def axis_frequencies(width: int, theta: float) -> Tensor:
    """``[width / 2]`` float64 angular frequencies of one axis."""
    return theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)


def axis_widths(head_width: int) -> tuple[int, int, int]:
    """How many channels of a head turn with frame, row and column: 44, 42 and 42 of 128."""
    side = 2 * (head_width // 6)
    return head_width - 2 * side, side, side


def rope_table(
    positions: Tensor, options: RopeOptions, device: torch.device | str, *, head_width: int = HEAD_WIDTH
) -> RopeTable:
    """The turns of every position.

    Args:
        positions: ``[L, 3]`` frame, row, column.
        options: function, RIFLEx and NTK settings.
        device: where the table will be used.
        head_width: channels of a head.
    """
    angles = []
    for axis, width in enumerate(axis_widths(head_width)):
        frequencies = axis_frequencies(width, THETA * options.ntk_scale[axis])
        if axis == 0 and 0 < options.riflex_index <= len(frequencies) and options.riflex_frames:
            frequencies[options.riflex_index - 1] = RIFLEX_SHARE * 2 * math.pi / options.riflex_frames
        angles.append(positions[:, axis].to(torch.float64)[:, None] * frequencies)
    joined = torch.cat(angles, dim=1)
    turns = torch.stack([joined.cos(), joined.sin()], dim=-1)
    dtype = torch.float64 if options.function == "default" else torch.float32
    return RopeTable(turns.float().to(device), dtype)


def _rotate_in_place(x: Tensor, turns: Tensor) -> None:
    wide = x.to(turns.dtype)  # the same memory when the dtype is already that
    torch.view_as_complex(wide.unflatten(-1, (-1, 2))).mul_(torch.view_as_complex(turns)[:, None])
    if wide is not x:
        x.copy_(wide)


def _rotated(x: Tensor, turns: Tensor) -> Tensor:
    even, odd = x.to(turns.dtype).unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = turns[:, None].unbind(-1)
    pairs = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return pairs.flatten(-2).to(x.dtype)
