"""Weights converted to fp8 while they are loaded, tensor by tensor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from .checkpoint import Checkpoint, StoredTensor
from .formats.expect import needs_decoding
from .formats.fp8_product import FP8_DTYPES

Scaling = Literal["none", "row", "tensor"]
_VALUES_AT_ONCE = 1 << 18  # the fastest on a processor
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Conversion:
    """What the matrices of the blocks become.

    Args:
        dtype: float8_e4m3fn or float8_e5m2.
        scaling: "none" casts the numbers as they are; "row" and "tensor" scale the largest to the dtype's
            limit, for each row or for the whole matrix, and keep the factor.
    """

    dtype: torch.dtype
    scaling: Scaling = "none"

    def __post_init__(self) -> None:
        if self.dtype not in FP8_DTYPES:
            raise ValueError(f"cannot convert weights to {self.dtype}")


def converted(checkpoint: Checkpoint, conversion: Conversion, keys: Collection[str]) -> Checkpoint:
    """The file with some matrices in fp8; each is converted when it is read.

    Matrices stored in 8 bit or less are left as they are.

    Args:
        checkpoint: with canonical key names.
        conversion: what to convert to.
        keys: of the weights to convert; those the file does not have are skipped.
    """
    tensors: dict[str, StoredTensor] = {}
    for key in keys:
        if key not in checkpoint:
            continue
        is_wide = checkpoint.dtype(key).is_floating_point and checkpoint.dtype(key).itemsize > 1
        is_matrix = len(checkpoint.shape(key)) == 2 and not needs_decoding(checkpoint, key)
        if is_wide and is_matrix:
            tensors.update(_Converted(checkpoint, key, conversion).stored())
    return checkpoint.replaced(tensors)


@dataclass(frozen=True)
class _Converted:
    """One matrix; its scales are computed once, its fp8 numbers whenever they are read."""

    checkpoint: Checkpoint
    key: str
    conversion: Conversion

    def stored(self) -> dict[str, StoredTensor]:
        shape = self.checkpoint.shape(self.key)
        tensors = {self.key: StoredTensor(shape, self.conversion.dtype, self._weight, is_made=True)}
        if self.conversion.scaling != "none":
            scale_shape = (shape[0],) if self.conversion.scaling == "row" else ()
            tensors[f"{self.key}_scale"] = StoredTensor(
                scale_shape, torch.float32, lambda: self._scale, is_made=True
            )
        return tensors

    @cached_property
    def _scale(self) -> Tensor:
        source = self.checkpoint.tensor(self.key)
        # Two passes at memory speed; the norm with p = infinity and aminmax by rows are ten times slower.
        rows = torch.maximum(source.amax(1), source.amin(1).neg_()).float()
        largest = rows if self.conversion.scaling == "row" else rows.max()
        return (largest / torch.finfo(self.conversion.dtype).max).clamp(min=_SMALLEST_SCALE)

    def _weight(self) -> Tensor:
        source = self.checkpoint.tensor(self.key)
        if self.conversion.scaling == "none":
            result = source.to(self.conversion.dtype)
        else:
            result = _scaled_cast(source, self._scale, self.conversion.dtype)
        self.checkpoint.release(self.key)
        return result


def _scaled_cast(source: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """``source / scale`` in fp8, in groups of rows that fit into caches."""
    result = torch.empty(source.shape, dtype=dtype)
    scales = scale.reshape(-1, 1).expand(source.shape[0], 1)
    step = max(1, _VALUES_AT_ONCE // source.shape[1])
    for start in range(0, source.shape[0], step):
        rows = slice(start, start + step)
        result[rows] = (source[rows] / scales[rows]).to(dtype)  # float32: the scales are
    return result
