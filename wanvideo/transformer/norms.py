"""The norms of a Wan block. Statistics are computed in float32 whatever the stream's dtype.

Like a linear layer, a norm is prepared once per use and then called for chunks of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .chunking import PIECE_ROWS, pieces

RMS_NORM_FUNCTIONS = ("default", "pytorch")


@dataclass(frozen=True)
class PreparedLayerNorm:
    """``layer_norm(x) * weight + bias`` in float32: an affine norm, or a modulated one with ``1 + scale``.

    Args:
        weight: ``[D]`` float32.
        bias: ``[D]`` float32.
        epsilon: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """``[R, D] -> [R, D]``, a new tensor of ``dtype``, which is that of ``x`` when not given."""
        dtype = dtype or x.dtype
        is_small = x.dtype == dtype == torch.float32 or x.shape[0] <= PIECE_ROWS
        if torch.compiler.is_compiling() or is_small:
            return self._whole(x).to(dtype)
        normed = torch.empty(x.shape, dtype=dtype, device=x.device)
        for part in pieces(x.shape[0]):
            normed[part] = self._whole(x[part])
        return normed

    def _whole(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True)
class PreparedRMSNorm:
    """Root-mean-square norm over the whole width.

    Args:
        weight: ``[D]`` in the dtype of the stream.
        epsilon: added to the mean square.
        function: ``default`` normalises in float32, casts back and multiplies by the weight, as the
            official code; ``pytorch`` is torch's fused operation.
    """

    weight: Tensor
    epsilon: float
    function: str

    def __call__(self, x: Tensor) -> Tensor:
        """``[R, D] -> [R, D]``; overwrites ``x`` where that saves memory."""
        if torch.compiler.is_compiling():
            return self._whole(x)
        for part in pieces(x.shape[0]):
            x[part] = self._whole(x[part])
        return x

    def _whole(self, x: Tensor) -> Tensor:
        if self.function == "pytorch":
            return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)
        normed = x.float()
        scale = torch.rsqrt(normed.square().mean(-1, keepdim=True).add_(self.epsilon))
        return (normed * scale).to(x.dtype).mul_(self.weight)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the whole width (all heads jointly), as Wan norms queries and keys."""

    parameter_dtype = "fp32"

    def __init__(self, width: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width), requires_grad=False)
        self.epsilon = epsilon

    def prepare(self, dtype: torch.dtype, function: str = "default") -> PreparedRMSNorm:
        """The norm for rows of ``dtype``; ``function`` is one of :data:`RMS_NORM_FUNCTIONS`."""
        return PreparedRMSNorm(self.weight.to(dtype), self.epsilon, function)


class LayerNorm(nn.Module):
    """Affine layer norm in float32 (``norm3``, before cross-attention)."""

    parameter_dtype = "fp32"

    def __init__(self, width: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(width), requires_grad=False)
        self.epsilon = epsilon

    def prepare(self) -> PreparedLayerNorm:
        """The norm, to be called for several chunks of rows."""
        return PreparedLayerNorm(self.weight, self.bias, self.epsilon)
