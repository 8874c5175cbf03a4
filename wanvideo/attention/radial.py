"""Radial attention: each token sees the tokens near its place in near frames (arXiv:2506.19852).

Attention fades with distance in time, so the window around a token's place narrows as frames lie further
apart, and far frames are left out in a regular pattern: O(n log n) instead of O(n^2). The first frame is
seen by everyone. The rule is applied to square blocks of tokens, see :func:`radial_mask`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .backend import LayoutAttention, TokenLayout
from .block_sparse import BlockSparseAttention

NO_TOKEN = -1


@dataclass(frozen=True)
class RadialSettings:
    """When and how radial attention is used.

    Args:
        dense_mode: backend of the dense blocks and steps, and of cross-attention.
        dense_blocks: transformer blocks that always see everything.
        dense_vace_blocks: the same for the blocks of a VACE module.
        dense_steps: first steps of a run that see everything.
        decay_factor: width of the windows between frames two or more apart, 0 to 1.
        block_size: tokens per side of a block, 64 or 128.
    """

    dense_mode: str = "auto"
    dense_blocks: frozenset[int] = frozenset({0})
    dense_vace_blocks: frozenset[int] = frozenset({0})
    dense_steps: int = 2
    decay_factor: float = 0.2
    block_size: int = 128

    def is_dense(self, step: int, block: int) -> bool:
        """Whether a step and transformer block see everything."""
        return step < self.dense_steps or block in self.dense_blocks

    def is_side_dense(self, step: int, block: int) -> bool:
        """Whether a step and block of a VACE module see everything."""
        return step < self.dense_steps or block in self.dense_vace_blocks


@dataclass(frozen=True)
class RadialAttention(LayoutAttention):
    """Attention over the blocks of :func:`radial_mask`.

    Args:
        executor: computes attention over a mask of blocks.
        decay_factor: see :class:`RadialSettings`.
        block_size: see :class:`RadialSettings`.
    """

    executor: BlockSparseAttention
    decay_factor: float = 0.2
    block_size: int = 128

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layout: TokenLayout) -> Tensor:
        """See :class:`LayoutAttention`."""
        mask = _mask_on(
            str(query.device),
            layout,
            query.shape[1],
            key.shape[1],
            self.decay_factor,
            self.block_size,
        )
        return self.executor(query, key, value, mask, self.block_size)


@lru_cache(maxsize=4)
def _mask_on(
    device: str, layout: TokenLayout, queries: int, keys: int, decay_factor: float, block_size: int
) -> Tensor:
    with torch.inference_mode(False):
        mask = radial_mask(layout, queries, keys, decay_factor=decay_factor, block_size=block_size)
        return mask.to(device)


def half_width(distance: int, frame_tokens: int, *, decay_factor: float, block_size: int) -> int:
    """How far apart two tokens may be in their frames to see each other, or ``NO_TOKEN``.

    With ``span = 2^bits(frame_tokens) / 2^bits(distance)``, where ``bits`` counts binary digits: the same
    frame is seen whole, the next one half a frame wide, others ``max(span * decay_factor, block_size)``.
    Where the span is narrower than a block, only every ``floor(block_size / span)``-th distance is seen.

    Args:
        distance: frames between the two tokens.
        frame_tokens: tokens of one frame.
        decay_factor: see :class:`RadialSettings`.
        block_size: see :class:`RadialSettings`.
    """
    if distance == 0:
        return frame_tokens
    if distance == 1:
        return frame_tokens // 2
    span = 2.0 ** (frame_tokens.bit_length() - distance.bit_length())
    if span < block_size and distance % int(block_size / span) != 0:
        return NO_TOKEN
    return int(max(span * decay_factor, block_size))


def radial_mask(
    layout: TokenLayout, queries: int, keys: int, *, decay_factor: float, block_size: int
) -> Tensor:
    """Which blocks of keys each block of queries sees.

    A key counts in a block of queries when more than a third of the queries see it; a block of keys is kept
    when more than 60 % of its keys that anyone sees count. A block on the diagonal, and one with a token
    outside the video, is always kept. Any number of tokens will do: the last block may be a part of one.

    Args:
        layout: where the video is in the sequence.
        queries: rows of the sequence.
        keys: rows of keys, at least as many; those beyond the sequence belong to no frame.
        decay_factor: see :class:`RadialSettings`.
        block_size: see :class:`RadialSettings`.

    Returns:
        bool ``[ceil(queries / block_size), ceil(keys / block_size)]`` on the CPU.
    """
    frames, frame_tokens = layout.grid[0], layout.frame_tokens
    column = torch.arange(keys, device="cpu") - layout.start
    outside = (column < 0) | (column >= frames * frame_tokens)
    key_frame = torch.where(outside, 0, column // frame_tokens)
    key_place = torch.where(outside, 0, column % frame_tokens)
    widths = torch.tensor(
        [
            half_width(d, frame_tokens, decay_factor=decay_factor, block_size=block_size)
            for d in range(frames)
        ],
        device="cpu",
    )
    any_outside = _per_block(outside, block_size) > 0
    rows = []
    for first in range(0, queries, block_size):
        last = min(first + block_size, queries)
        if first < layout.start or last > layout.stop:
            rows.append(torch.ones_like(any_outside))
            continue
        seen_by = torch.zeros(keys, dtype=torch.long, device="cpu")
        for frame, start, stop in _frames_of(first - layout.start, last - layout.start, frame_tokens):
            width = widths[(key_frame - frame).abs()]
            width[key_frame == 0] = frame_tokens
            lowest = (key_place - width).clamp(min=start)
            highest = (key_place + width).clamp(max=stop - 1)
            seen_by += torch.where(width == NO_TOKEN, 0, (highest - lowest + 1).clamp(min=0))
        counts = (3 * seen_by > last - first) & ~outside
        seen = (seen_by > 0) & ~outside
        kept = 5 * _per_block(counts, block_size) > 3 * _per_block(seen, block_size)
        kept = kept | any_outside
        kept[first // block_size] = True
        rows.append(kept)
    return torch.stack(rows)


def _frames_of(first: int, last: int, frame_tokens: int) -> list[tuple[int, int, int]]:
    """``(frame, first place, one past the last place)`` of the video tokens ``first`` to ``last``."""
    return [
        (
            frame,
            max(first - frame * frame_tokens, 0),
            min(last - frame * frame_tokens, frame_tokens),
        )
        for frame in range(first // frame_tokens, (last - 1) // frame_tokens + 1)
    ]


def _per_block(flags: Tensor, block_size: int) -> Tensor:
    """How many flags each block has."""
    missing = -flags.shape[0] % block_size
    padded = torch.nn.functional.pad(flags.long(), (0, missing))
    return padded.unflatten(0, (-1, block_size)).sum(1)
