"""Rotary position embedding over frame, row and column (RoFormer, arXiv:2104.09864, as Wan splits it).

The 128 channels of a head are split into 44 temporal, 42 vertical and 42 horizontal ones; each axis
has its own frequencies; pairs are adjacent channels. Angles are computed in float64 on the CPU from
positions that may be negative, fractional or offset; rotations happen in float32 (``comfy``) or
float64 (``default``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .chunking import token_slices
from .config import HEAD_WIDTH

ROPE_FUNCTIONS = ("default", "comfy", "comfy_chunked")
THETA = 10_000.0
_SIDE = 2 * (HEAD_WIDTH // 6)
AXIS_WIDTHS = (HEAD_WIDTH - 2 * _SIDE, _SIDE, _SIDE)  # 44, 42, 42
CHUNKS_OF_CHUNKED = 2
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
    """Cosines and sines per token, ``[L, 64]`` float32 each, and the function that applies them."""

    cosine: Tensor
    sine: Tensor
    function: str

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate queries or keys ``[B, L, N, 128]``; same dtype."""
        if self.function == "default":
            return _rotate_complex(x, self.cosine, self.sine)
        if self.function == "comfy_chunked":
            return _rotate_chunked(x, self.cosine, self.sine, CHUNKS_OF_CHUNKED)
        return _rotate_real(x, self.cosine, self.sine)


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


def rope_table(positions: Tensor, options: RopeOptions, device: torch.device | str) -> RopeTable:
    """Cosines and sines for every position.

    Args:
        positions: ``[L, 3]`` frame, row, column.
        options: function, RIFLEx and NTK settings.
        device: where the table will be used.
    """
    angles = []
    for axis, width in enumerate(AXIS_WIDTHS):
        frequencies = axis_frequencies(width, THETA * options.ntk_scale[axis])
        if axis == 0 and 0 < options.riflex_index <= len(frequencies) and options.riflex_frames:
            frequencies[options.riflex_index - 1] = RIFLEX_SHARE * 2 * math.pi / options.riflex_frames
        angles.append(positions[:, axis].to(torch.float64)[:, None] * frequencies)
    joined = torch.cat(angles, dim=1)
    return RopeTable(joined.cos().float().to(device), joined.sin().float().to(device), options.function)


def _rotate_real(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    pairs = x.float().unflatten(-1, (-1, 2))
    even, odd = pairs.unbind(-1)
    cosine, sine = cosine[:, None], sine[:, None]
    rotated = torch.empty_like(pairs)
    torch.mul(even, cosine, out=rotated[..., 0]).addcmul_(odd, sine, value=-1)
    torch.mul(even, sine, out=rotated[..., 1]).addcmul_(odd, cosine)
    return rotated.flatten(-2).to(x.dtype)


def _rotate_chunked(x: Tensor, cosine: Tensor, sine: Tensor, chunks: int) -> Tensor:
    rotated = torch.empty_like(x)
    for part in token_slices(x.shape[1], chunks):
        rotated[:, part] = _rotate_real(x[:, part], cosine[part], sine[part])
    return rotated


def _rotate_complex(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    turns = torch.complex(cosine.double(), sine.double())[:, None]
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)
