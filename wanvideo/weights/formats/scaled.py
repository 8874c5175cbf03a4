"""8 bit weights with scales: `scaled_fp8` files, ComfyUI's `float8_*` and `int8_tensorwise`, our casts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import PreparedLinear, WeightFormat
from .fp8_product import layer_problem, prepare_fp8


@dataclass(frozen=True)
class ScaledFormat(WeightFormat):
    """``weight * weight_scale``, one factor per matrix, row or block of a row, multiplied in float32.

    Args:
        name: as messages say it.
        is_exact: the file asks for products in full precision.
        uses_fp8_product: multiply in fp8 where the device and the layer allow it.
    """

    name: str = "scaled fp8"
    is_exact: bool = False
    uses_fp8_product: bool = False

    def materialize(self, stored: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The matrix `[out, in]` in `dtype`."""
        weight, scale = stored["weight"], stored.get("weight_scale")
        if scale is None:
            return weight.to(dtype)
        if weight.dtype.itemsize > 1:
            return apply_scale(weight.to(torch.float32, copy=True), scale).to(dtype)
        # Every 8 bit number is exact in 16 bit, so this rounds once, as float32 all the way would.
        return apply_scale(weight.to(dtype), scale)

    def prepare(
        self, stored: Mapping[str, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> PreparedLinear:
        """The layer for inputs of `dtype`, by the fp8 product where it is asked for and possible."""
        if self.uses_fp8_product and layer_problem(stored, stored["weight"].device, dtype) is None:
            return prepare_fp8(stored, bias, dtype)
        return super().prepare(stored, bias, dtype)


def apply_scale(matrix: Tensor, scale: Tensor) -> Tensor:
    """Multiply in place, in float32 whatever the dtype of the matrix.

    Args:
        matrix: ``[out, in]``.
        scale: 1, ``out`` or ``out * blocks`` values, blocks being equal parts of a row.

    Returns:
        `matrix`.
    """
    # A scale without dimensions would be rounded to the matrix's dtype first: by up to 0.4 % in bfloat16.
    if scale.numel() == 1:
        return matrix.mul_(scale.float().reshape(1, 1))
    factors = scale.float().reshape(matrix.shape[0], -1, 1)
    matrix.view(matrix.shape[0], factors.shape[1], -1).mul_(factors)
    return matrix
