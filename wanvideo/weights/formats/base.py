"""What a storage format is, and the one in which nothing is packed.

A format is a value without state: the tensors of a layer (`weight`, and what goes with it: scales, ...) are
parameters of the `WanLinear`, so that residency, block streaming and compilation see ordinary tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class PreparedLinear(Protocol):
    """A weight ready to multiply with: made once per use of a layer, called for each chunk of rows."""

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [..., out_features]``."""
        ...


@dataclass(frozen=True)
class DenseLinear:
    """``x W^T + b`` with a weight in the dtype of ``x``."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [..., out_features]``."""
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class WeightFormat:
    """Weights stored as numbers of any floating type, without scales. Other formats derive from it.

    Args:
        name: as messages say it.
    """

    name: str = "dense"

    def materialize(self, stored: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The matrix `[out, in]` in `dtype`; no copy when it is stored like that.

        Args:
            stored: the layer's tensors but the bias, by name; "weight" is always among them.
            dtype: of the result.
        """
        return stored["weight"].to(dtype)

    def prepare(
        self, stored: Mapping[str, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> PreparedLinear:
        """The layer for inputs of `dtype`. A format with a matrix product of its own returns that."""
        return DenseLinear(self.materialize(stored, dtype), None if bias is None else bias.to(dtype))


DENSE = WeightFormat()
