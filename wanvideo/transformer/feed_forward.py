"""Feed-forward layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.linear import WanLinear


class TanhGelu(nn.Module):
    """GELU in its tanh form, which the Wan weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Element-wise, same shape and dtype."""
        return F.gelu(x, approximate="tanh")


class FeedForward(nn.Sequential):
    """Linear, GELU (tanh), linear; key names ``0`` and ``2``. Also the shape of the text embedding."""

    def __init__(self, width: int, inner_width: int, out_width: int | None = None) -> None:
        super().__init__(
            WanLinear(width, inner_width), TanhGelu(), WanLinear(inner_width, out_width or width)
        )
