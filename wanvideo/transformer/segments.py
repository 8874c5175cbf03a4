"""Tokens that join the sequence, and the sequence they make.

The core never asks why a segment exists: reference images, motion frames, poses and memories are all
segments. A plain video is the one segment ``main``.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import torch
from torch import Tensor

from .modulation import TokenRun

MAIN = "main"
CLEAN_TIMESTEP = 0.0


@dataclass(frozen=True)
class Segment:
    """Tokens with a place and a noise level.

    Args:
        tokens: ``[B, L, D]``; those of ``main`` decide dtype and batch, others may have a batch of 1.
        positions: ``[L, 3]`` frame, row, column; may be negative, fractional or offset.
        timesteps: one value (0 to 1000) for all tokens, or one per frame of the segment; ``L`` is then
            a multiple of their number. 0 is clean.
        role: ``"main"`` or the family's name for it, used in messages, tests and visibility.
        sees: roles this segment's queries attend to; ``None`` is every segment.
    """

    tokens: Tensor
    positions: Tensor
    timesteps: tuple[float, ...]
    role: str
    sees: frozenset[str] | None = None


@dataclass(frozen=True)
class Span:
    """Where a segment lies in the sequence."""

    role: str
    start: int
    stop: int
    sees: frozenset[str] | None


@dataclass(frozen=True)
class Sequence:
    """What the joined segments are, beside their tokens.

    Args:
        batch: videos computed together.
        positions: ``[L, 3]``.
        timesteps: the distinct timesteps, in order of appearance.
        runs: which tokens use which of them.
        spans: where each segment lies.
    """

    batch: int
    positions: Tensor
    timesteps: tuple[float, ...]
    runs: tuple[TokenRun, ...]
    spans: tuple[Span, ...]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.spans[-1].stop

    @property
    def main(self) -> Span:
        """Where the video's own tokens lie."""
        return next(span for span in self.spans if span.role == MAIN)


def join(segments: SequenceOf[Segment]) -> tuple[Tensor, Sequence]:
    """Put segments one after the other; neighbouring tokens of one timestep share a run.

    Returns:
        The tokens ``[B, L, D]``, and what they are. They are apart so that the tokens entering the first
        block can be freed when it is done.
    """
    values: dict[float, int] = {}
    runs: list[TokenRun] = []
    spans: list[Span] = []
    start = 0
    for segment in segments:
        length = segment.tokens.shape[1]
        per_frame, rest = divmod(length, len(segment.timesteps))
        assert rest == 0, f"segment {segment.role}: {length} tokens, {len(segment.timesteps)} timesteps"
        for frame, value in enumerate(segment.timesteps):
            row = values.setdefault(value, len(values))
            _extend_runs(runs, start + frame * per_frame, start + (frame + 1) * per_frame, row)
        spans.append(Span(segment.role, start, start + length, segment.sees))
        start += length
    main = next(segment.tokens for segment in segments if segment.role == MAIN)
    like_main = [segment.tokens.to(main).expand(main.shape[0], -1, -1) for segment in segments]
    tokens = main if len(segments) == 1 else torch.cat(like_main, dim=1)
    positions = torch.cat([s.positions for s in segments])
    return tokens, Sequence(tokens.shape[0], positions, tuple(values), tuple(runs), tuple(spans))


def _extend_runs(runs: list[TokenRun], start: int, stop: int, row: int) -> None:
    if runs and runs[-1].row == row and runs[-1].stop == start:
        start = runs.pop().start
    runs.append(TokenRun(start, stop, row))
