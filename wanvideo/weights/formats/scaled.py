"""fp8 weights with scales (`scaled_fp8` files and ComfyUI's `float8_*` formats)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import WeightFormat


@dataclass(frozen=True)
class ScaledFormat(WeightFormat):
    """``weight * weight_scale`` with one factor per matrix or per row, multiplied in float32."""

    name: str = "scaled fp8"

    def materialize(self, stored: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The matrix `[out, in]` in `dtype`."""
        # The scale is applied in float32: rounded to bfloat16 it would shift a whole matrix by up to 0.4 %.
        scale = stored["weight_scale"].float().reshape(-1, 1)
        return stored["weight"].float().mul_(scale).to(dtype)


SCALED = ScaledFormat()
