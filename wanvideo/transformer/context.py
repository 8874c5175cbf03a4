"""What a block may read during one forward, and what lives as long as one run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..attention.registry import AttentionFunction
from .modulation import TimeTable
from .rope import RopeOptions, RopeTable
from .segments import Span

T = TypeVar("T")

BlockWalk = Callable[[Sequence[nn.Module], Collection[int]], Generator[tuple[int, nn.Module], None, None]]
"""``walk(blocks, skip)`` yields ``(index, block)`` in order without the skipped ones; while a block is out,
its weights are on the device."""


def walk_resident(
    blocks: Sequence[nn.Module], skip: Collection[int] = ()
) -> Generator[tuple[int, nn.Module], None, None]:
    """The blocks in order, all of them on the device already."""
    for index, block in enumerate(blocks):
        if index not in skip:
            yield index, block


@dataclass(frozen=True)
class RunOptions:
    """Choices that hold for a whole sampling run and change no result beyond rounding.

    Args:
        attention: computes attention; see ``wanvideo.attention.registry``.
        attention_for: picks another function for a step and block, or ``None`` for ``attention``.
        rope: RoPE function and its settings.
        rms_norm: one of ``norms.RMS_NORM_FUNCTIONS``.
        feed_forward_chunks: token chunks of the feed-forward layers; 1 is whole.
        check: called before every block; raises to stop the run.
        walk: brings the blocks one after the other; a streamer prefetches and releases their weights.
    """

    attention: AttentionFunction
    attention_for: Callable[[int, int], AttentionFunction | None] = lambda _step, _block: None
    rope: RopeOptions = field(default_factory=RopeOptions)
    rms_norm: str = "default"
    feed_forward_chunks: int = 1
    check: Callable[[], None] = lambda: None
    walk: BlockWalk = walk_resident


@dataclass
class RunState:
    """Values computed once per run and reused by its forwards; dies with the run."""

    options: RunOptions
    step: int = 0
    _memo: dict[Hashable, Any] = field(default_factory=dict)
    _rope: tuple[Tensor, RopeTable] | None = None

    def memo(self, key: Hashable, compute: Callable[[], T]) -> T:
        """``compute()`` the first time ``key`` is asked for, the same object afterwards."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    def rope_table(self, positions: Tensor, build: Callable[[], RopeTable]) -> RopeTable:
        """The table for ``positions``; the last one is kept, since every forward asks for the same."""
        if self._rope is None or not torch.equal(self._rope[0], positions):
            self._rope = (positions, build())
        return self._rope[1]


@dataclass(frozen=True)
class TextPart:
    """Embedded text rows and the video tokens that attend to them.

    Args:
        tokens: ``[B, text_length, D]``.
        start: first token of the sequence that reads this part.
        stop: one past the last.
    """

    tokens: Tensor
    start: int
    stop: int


class AttentionRule(Protocol):
    """Extension point 8: reads or changes self-attention of one block."""

    def project(
        self, query: Tensor, key: Tensor, value: Tensor, context: BlockContext
    ) -> tuple[Tensor, Tensor, Tensor]:
        """After norm and RoPE, ``[B, L, N, 128]`` each; keys and values may grow, queries may not."""
        ...

    def attended(self, output: Tensor, query: Tensor, context: BlockContext) -> Tensor:
        """Before the output projection, ``[B, L, D]``."""
        ...


@dataclass(frozen=True)
class BlockContext:
    """All a block reads besides the tokens."""

    time: TimeTable
    rope: RopeTable
    text: tuple[TextPart, ...]
    image: Tensor | None
    spans: tuple[Span, ...]
    options: RunOptions
    attention: AttentionFunction
    rules: tuple[AttentionRule, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    block_index: int = 0
