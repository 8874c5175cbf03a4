"""The loops that split work along tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PIECE_ROWS = 1024  # float32 temporaries of element-wise work are at most this many rows


def token_slices(length: int, size: int) -> Iterator[slice]:
    """Cut ``length`` tokens into runs of ``size``, the last one shorter; every token is in exactly one."""
    for start in range(0, length, max(1, size)):
        yield slice(start, min(start + size, length))


def pieces(rows: int) -> Iterator[slice]:
    """Cut rows for element-wise work, so that its temporaries are small and stay in the cache.

    A compiler fuses the temporaries away by itself, so functions that are compiled do without.
    """
    return token_slices(rows, PIECE_ROWS)


class RowBuffer:
    """``[B, L, ...]`` filled with rows. Rows that are all of it become the buffer without a copy.

    Args:
        batch: videos computed together.
        length: tokens.
    """

    def __init__(self, batch: int, length: int) -> None:
        self._size = (batch, length)
        self._tensor: Tensor | None = None

    def put(self, member: int, start: int, values: Tensor) -> None:
        """Set rows ``start`` and following of one video to ``values [R, ...]``."""
        count = values.shape[0]
        if self._size == (1, count):
            self._tensor = values.unsqueeze(0)
            return
        if self._tensor is None:
            shape = (*self._size, *values.shape[1:])
            self._tensor = torch.empty(shape, dtype=values.dtype, device=values.device)
        self._tensor[member, start : start + count] = values

    @property
    def tensor(self) -> Tensor:
        """``[B, L, ...]``, after every row was put."""
        assert self._tensor is not None
        return self._tensor
