"""The row functions of a block as one value: as they are, or compiled by ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from . import rows


@dataclass(frozen=True)
class BlockProgram:
    """How a block computes everything but attention.

    Args:
        keys_values: see ``rows.keys_values``; the others likewise.
        queries: of self- and cross-attention.
        add_projected: output layers of both.
        feed_forward: with its norm and gate.
        scope: entered around a run; settings the functions need while they run.
    """

    keys_values: Callable[..., tuple[rows.Tensor, rows.Tensor]] = rows.keys_values
    queries: Callable[..., rows.Tensor] = rows.queries
    add_projected: Callable[..., None] = rows.add_projected
    feed_forward: Callable[..., None] = rows.feed_forward
    scope: Callable[[], AbstractContextManager[object]] = nullcontext


EAGER = BlockProgram()
