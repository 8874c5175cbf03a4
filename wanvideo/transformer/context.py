"""What a block may read during one forward, and what lives as long as one run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..attention.registry import AttentionFunction, LayoutAttention
from .chunking import token_slices
from .modulation import TimeTable
from .program import EAGER, BlockProgram
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
        attention_for: picks another function for self-attention in a step and block, or ``None`` for
            ``attention``.
        side_attention_for: the same for the blocks of a side network, by their own number.
        rope: RoPE function and its settings.
        rms_norm: one of ``norms.RMS_NORM_FUNCTIONS``.
        row_chunks: runs of tokens into which everything but keys and values is split, so that their
            temporaries are smaller by that factor; 1 is whole. See ``memory.row_chunks_for``.
        program: the row functions of a block, eager or compiled.
        check: called before every block; raises to stop the run.
        walk: brings the blocks one after the other; a streamer prefetches and releases their weights.
        on_prepared: called when the text and the timesteps of the run are embedded and no family edits
            them later: the weights of the embedders are not needed any more.
    """

    attention: AttentionFunction
    attention_for: Callable[[int, int], AttentionFunction | LayoutAttention | None] = lambda _step, _block: (
        None
    )
    side_attention_for: Callable[[int, int], AttentionFunction | LayoutAttention | None] = (
        lambda _step, _block: None
    )
    rope: RopeOptions = field(default_factory=RopeOptions)
    rms_norm: str = "default"
    row_chunks: int = 1
    program: BlockProgram = EAGER
    check: Callable[[], None] = lambda: None
    walk: BlockWalk = walk_resident
    on_prepared: Callable[[], None] = lambda: None


@dataclass
class RunState:
    """Values computed once per run and reused by its forwards; dies with the run."""

    options: RunOptions
    step: int = 0
    _memo: dict[Hashable, Any] = field(default_factory=dict)
    _rope: tuple[Tensor, RopeTable] | None = None
    _evaluation: tuple[Tensor, float] | None = None
    _evaluation_memo: dict[Hashable, Any] = field(default_factory=dict)

    def begin_evaluation(self, latent: Tensor, timestep: float, step: int) -> None:
        """Say what the next forward works on; the guidance passes of a step work on the same."""
        self.step = step
        last = self._evaluation
        if last is None or last[0] is not latent or last[1] != timestep:
            self._evaluation_memo.clear()
        self._evaluation = (latent, timestep)

    def evaluation_memo(self, key: Hashable, compute: Callable[[], T]) -> T:
        """``compute()`` once for all passes over the same latent at the same timestep."""
        if key not in self._evaluation_memo:
            self._evaluation_memo[key] = compute()
        return self._evaluation_memo[key]

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
    """Embedded rows of a prompt or a picture, and the video tokens that attend to them.

    Args:
        tokens: ``[1, rows, D]``, or one per video.
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
class RowPart:
    """Rows for one call of a row function: tokens of one video that share a timestep.

    Args:
        member: which video of the batch.
        start: first token of the sequence.
        stop: one past the last.
        row: their row of the time table.
    """

    member: int
    start: int
    stop: int
    row: int

    def of(self, tokens: Tensor) -> Tensor:
        """The rows ``[R, ...]`` of ``tokens [B, L, ...]``, sharing their memory."""
        return tokens[self.member, self.start : self.stop]


@dataclass(frozen=True)
class BlockContext:
    """All a block reads besides the tokens.

    ``attention`` serves cross-attention and whatever sees a part of the sequence, ``self_attention`` the
    sequence as a whole.
    """

    time: TimeTable
    rope: RopeTable
    text: tuple[TextPart, ...]
    image: tuple[TextPart, ...]
    spans: tuple[Span, ...]
    options: RunOptions
    attention: AttentionFunction
    self_attention: AttentionFunction
    rules: tuple[AttentionRule, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    block_index: int = 0

    def within(self, span: Span) -> BlockContext:
        """The context of a network that works on the tokens of one segment alone, in the same places.

        No attention rule and no image row is in it; text parts are those its tokens read.
        """
        length = span.stop - span.start
        text = tuple(
            replace(part, start=max(0, part.start - span.start), stop=min(length, part.stop - span.start))
            for part in self.text
            if part.start < span.stop and part.stop > span.start
        )
        return replace(
            self,
            time=self.time.for_slice(span.start, span.stop),
            rope=self.rope.rows(span.start, span.stop),
            text=text,
            image=(),
            spans=(Span(span.role, 0, length, None),),
            self_attention=self.attention,
            rules=(),
            inputs={},
        )

    def chunks(self, tokens: Tensor) -> Iterator[slice]:
        """The row chunks of ``[B, L, D]``: equal runs of tokens, the last one shorter."""
        length = tokens.shape[1]
        return token_slices(length, -(-length // max(1, self.options.row_chunks)))

    def parts(self, tokens: Tensor, within: slice | None = None) -> Iterator[RowPart]:
        """The rows of ``[B, L, D]`` as row functions take them, each within one chunk.

        Args:
            tokens: the whole sequence.
            within: only those of these tokens.
        """
        low, high = (within.start, within.stop) if within else (0, tokens.shape[1])
        for member, chunk in product(range(tokens.shape[0]), self.chunks(tokens)):
            for run in self.time.runs:
                start, stop = max(low, chunk.start, run.start), min(high, chunk.stop, run.stop)
                if start < stop:
                    yield RowPart(member, start, stop, run.row)
