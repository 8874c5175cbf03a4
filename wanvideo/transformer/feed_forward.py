"""Feed-forward layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..weights.linear import WanLinear


class TanhGelu(nn.Module):
    """GELU in its tanh form, which the Wan weights were trained with; overwrites its input.

    Its input is the hidden layer, the widest tensor of a block: a second one would be the block's peak.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Element-wise, same shape and dtype."""
        return torch.ops.aten.gelu_(x, approximate="tanh")


class FeedForward(nn.Sequential):
    """Linear, GELU (tanh), linear; key names ``0`` and ``2``. Also the shape of the text embedding."""

    def __init__(self, width: int, inner_width: int, out_width: int | None = None) -> None:
        super().__init__(
            WanLinear(width, inner_width), TanhGelu(), WanLinear(inner_width, out_width or width)
        )
