"""Feed-forward layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..weights.linear import WanLinear
from .context import BlockContext
from .modulation import Modulation


class TanhGelu(nn.Module):
    """GELU in its tanh form, which the Wan weights were trained with; overwrites its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Element-wise, same shape and dtype."""
        return torch.ops.aten.gelu_(x, approximate="tanh")


class FeedForward(nn.Sequential):
    """Linear, GELU (tanh), linear; key names ``0`` and ``2``. Also the shape of the text embedding."""

    def __init__(self, width: int, inner_width: int, out_width: int | None = None) -> None:
        super().__init__(
            WanLinear(width, inner_width), TanhGelu(), WanLinear(inner_width, out_width or width)
        )

    def add_to(self, x: Tensor, modulation: Modulation, context: BlockContext) -> None:
        """Add the modulated and gated layers to the tokens ``[B, L, D]``, chunk by chunk."""
        inner, _, outer = self
        assert isinstance(inner, WanLinear)
        assert isinstance(outer, WanLinear)
        first, second = inner.prepare(x.dtype), outer.prepare(x.dtype)
        for part in context.parts(x):
            context.options.program.feed_forward(
                part.of(x), modulation.norm(part.row), first, second, modulation.gate[part.row]
            )
