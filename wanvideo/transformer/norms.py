"""The norms of a Wan block. Statistics are computed in float32 whatever the stream's dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RMS_NORM_FUNCTIONS = ("default", "pytorch")


class RMSNorm(nn.Module):
    """Root-mean-square norm over the whole width (all heads jointly), as Wan norms queries and keys.

    ``function`` chooses the arithmetic: ``default`` normalises in float32, casts back and multiplies
    by the weight, as the official code; ``pytorch`` is torch's fused operation.
    """

    parameter_dtype = "fp32"

    def __init__(self, width: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width), requires_grad=False)
        self.epsilon = epsilon

    def forward(self, x: Tensor, function: str = "default") -> Tensor:
        """``[..., width] -> [..., width]`` in the dtype of ``x``."""
        if function == "pytorch":
            return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.epsilon)
        normed = x.float()
        scale = torch.rsqrt(normed.square().mean(-1, keepdim=True).add_(self.epsilon))
        return (normed * scale).to(x.dtype).mul_(self.weight.to(x.dtype))


class LayerNorm(nn.Module):
    """Affine layer norm in float32 (``norm3``, before cross-attention)."""

    parameter_dtype = "fp32"

    def __init__(self, width: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(width), requires_grad=False)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width] -> [..., width]`` in the dtype of ``x``."""
        return F.layer_norm(x.float(), (x.shape[-1],), self.weight, self.bias, self.epsilon).to(x.dtype)
