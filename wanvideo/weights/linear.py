"""The linear layer of every Wan network: any storage format, arithmetic in the input's dtype."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .formats import DENSE, PreparedLinear, WeightFormat


class WanLinear(nn.Module):
    """``y = x W^T + b`` with a weight stored in any format.

    Parameters are allocated but not initialised, so that building on the meta device costs nothing and
    `weights.assemble` fills them. `weight` has the shape it is stored in, which is `[out, in]` unless the
    format packs it; what goes with it (scales, ...) is further parameters, and `format` knows what they mean.

    Args:
        in_features: width of the input.
        out_features: width of the result.
        bias: whether there is a bias.

    `parameter_dtype` is the role read by `weights.dtype_policy`.
    """

    parameter_dtype = "compute"
    weight: nn.Parameter
    bias: nn.Parameter | None
    format: WeightFormat

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.format = DENSE
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        )

    def store_as(self, format: WeightFormat, stored: Mapping[str, Tensor]) -> None:
        """Change the storage: `stored` (as `stored()` gives it) replaces every tensor but the bias."""
        for name in self.stored():
            del self._parameters[name]
        self.format = format
        for name, tensor in stored.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    def stored(self) -> dict[str, Tensor]:
        """Every tensor but the bias, by name."""
        return {
            name: tensor for name, tensor in self._parameters.items() if tensor is not None and name != "bias"
        }

    def materialize(self, dtype: torch.dtype) -> Tensor:
        """The weight as it is multiplied: `[out, in]` in `dtype`. No copy when it is stored like that."""
        return self.format.materialize(self.stored(), dtype)

    def prepare(self, dtype: torch.dtype) -> PreparedLinear:
        """The layer for inputs of `dtype`, to be called for several chunks of rows."""
        return self.format.prepare(self.stored(), self.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [..., out_features]`` in the dtype of `x`."""
        return self.prepare(x.dtype)(x)

    def extra_repr(self) -> str:
        """Sizes and storage, for `print(model)`."""
        return f"{self.in_features}, {self.out_features}, {self.format.name} as {self.weight.dtype}"
