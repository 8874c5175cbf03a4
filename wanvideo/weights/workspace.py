"""Memory that packed weights need beside themselves while they compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from .formats import DENSE
from .linear import WanLinear


def expanded_bytes(blocks: Iterable[nn.Module], dtype: torch.dtype) -> int:
    """Bytes of the weights that are expanded to `dtype` at the same time, while one part of a block computes.

    Args:
        blocks: whose layers may be stored in any format.
        dtype: they compute in.
    """
    sizes: Counter[str] = Counter()
    for number, block in enumerate(blocks):
        for name, layer in block.named_modules():
            if isinstance(layer, WanLinear) and not _is_used_as_stored(layer, dtype):
                part = name.rpartition(".")[0]
                sizes[f"{number}.{part}"] += layer.in_features * layer.out_features * dtype.itemsize
    return max(sizes.values(), default=0)


def _is_used_as_stored(layer: WanLinear, dtype: torch.dtype) -> bool:
    return layer.format is DENSE and layer.weight.dtype == dtype
