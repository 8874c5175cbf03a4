"""The row-wise parts of a block: pure functions of rows, prepared norms and prepared layers.

Everything in a block but attention treats each token by itself. These functions take the rows of one
video that share a timestep, ``[R, D]``, so they can be called for any chunk of tokens, and they hold no
module and no state, so that one compiled graph of each serves every block of a model.

Prepared layers return new tensors, which are overwritten here; ``x`` is changed in place where the
function returns nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..weights.formats import PreparedLinear
from .chunking import pieces
from .config import HEAD_WIDTH
from .norms import PreparedLayerNorm, PreparedRMSNorm
from .rope import RopeTable


def split_heads(x: Tensor, head_width: int = HEAD_WIDTH) -> Tensor:
    """``[..., D] -> [..., N, K]``."""
    return x.unflatten(-1, (-1, head_width))


def keys_values(
    x: Tensor,
    norm: PreparedLayerNorm,
    key: PreparedLinear,
    value: PreparedLinear,
    key_norm: PreparedRMSNorm,
    rope: RopeTable,
) -> tuple[Tensor, Tensor]:
    """Keys, normed and rotated, and values of ``x [R, D]``: ``[R, N, K]`` each, K as in the table."""
    normed, width = norm(x), rope.head_width
    return rope.rotate(split_heads(key_norm(key(normed)), width)), split_heads(value(normed), width)


def queries(
    x: Tensor,
    norm: PreparedLayerNorm,
    query: PreparedLinear,
    query_norm: PreparedRMSNorm,
    rope: RopeTable | None,
) -> Tensor:
    """Queries of ``x [R, D]``, normed and, in self-attention, rotated: ``[R, N, K]``."""
    normed = query_norm(query(norm(x)))
    return split_heads(normed) if rope is None else rope.rotate(split_heads(normed, rope.head_width))


def add_projected(x: Tensor, attended: Tensor, output: PreparedLinear, gate: Tensor | None) -> None:
    """Add ``gate * output(attended [R, D])`` to ``x [R, D]``; no gate is a gate of 1."""
    _add(x, output(attended), gate)


def feed_forward(
    x: Tensor, norm: PreparedLayerNorm, first: PreparedLinear, second: PreparedLinear, gate: Tensor
) -> None:
    """Add ``gate * second(gelu(first(norm(x))))`` to ``x [R, D]``; GELU in its tanh form."""
    # GELU overwrites the hidden layer, the widest tensor of a block: a second one would be the peak.
    hidden = torch.ops.aten.gelu_(first(norm(x)), approximate="tanh")
    update = second(hidden)
    del hidden
    _add(x, update, gate)


def _add(x: Tensor, update: Tensor, gate: Tensor | None) -> None:
    if gate is None:
        x.add_(update)
    elif x.dtype == torch.float32:
        x.addcmul_(update, gate)
    elif torch.compiler.is_compiling():
        x.copy_(torch.addcmul(x.float(), update.float(), gate))
    else:
        for part in pieces(x.shape[0]):
            x[part] = torch.addcmul(x[part].float(), update[part].float(), gate)
