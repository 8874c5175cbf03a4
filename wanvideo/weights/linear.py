"""The linear layer of every Wan network: any storage dtype, arithmetic in the input's dtype."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WanLinear(nn.Module):
    """``y = x W^T + b`` with a weight stored narrower than, wider than or like the input.

    Parameters are allocated but not initialised, so that building on the meta device costs nothing and
    `weights.assemble` fills them. `materialize` is the one place that turns what is stored into what is
    multiplied.

    Args:
        in_features: width of the input.
        out_features: width of the result.
        bias: whether there is a bias.

    `scale_weight` is the per-tensor or per-row factor of a scaled fp8 weight, or None. `parameter_dtype`
    is the role read by `weights.dtype_policy`.
    """

    parameter_dtype = "compute"
    weight: nn.Parameter
    bias: nn.Parameter | None
    scale_weight: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        )
        self.register_parameter("scale_weight", None)

    def materialize(self, dtype: torch.dtype) -> Tensor:
        """The weight as it is multiplied: `[out, in]` in `dtype`. No copy when it is stored like that."""
        if self.scale_weight is None:
            return self.weight.to(dtype)
        # The scale is applied in float32: rounded to bfloat16 it would shift a whole matrix by up to 0.4 %.
        scale = self.scale_weight.float().reshape(-1, 1)
        return self.weight.float().mul_(scale).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [..., out_features]`` in the dtype of `x`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.materialize(x.dtype), bias)

    def extra_repr(self) -> str:
        """Sizes and storage, for `print(model)`."""
        return f"{self.in_features}, {self.out_features}, stored as {self.weight.dtype}"
