"""The one loop that splits work along tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def token_slices(length: int, chunks: int) -> Iterator[slice]:
    """Cut ``length`` tokens into at most ``chunks`` runs of equal size, the last one shorter.

    Every token belongs to exactly one slice, also when ``chunks`` does not divide ``length``.
    """
    size = -(-length // max(1, chunks))
    for start in range(0, length, max(1, size)):
        yield slice(start, min(start + size, length))


def map_tokens(function: Callable[[Tensor], Tensor], tokens: Tensor, chunks: int) -> Tensor:
    """``function(tokens)`` computed in ``chunks`` parts along the token axis.

    Args:
        function: acts on every token by itself, ``[B, l, D] -> [B, l, E]``.
        tokens: ``[B, L, D]``.
        chunks: 1 computes the whole at once.

    Returns:
        ``[B, L, E]``, equal to ``function(tokens)`` within rounding.
    """
    if chunks <= 1 or tokens.shape[1] <= 1:
        return function(tokens)
    result: Tensor | None = None
    for part in token_slices(tokens.shape[1], chunks):
        value = function(tokens[:, part])
        if result is None:
            result = torch.empty(
                (tokens.shape[0], tokens.shape[1], *value.shape[2:]), dtype=value.dtype, device=value.device
            )
        result[:, part] = value
    assert result is not None
    return result
