"""ComfyUI's formats that the package comfy_kitchen implements: mxfp8, nvfp4, rotated int8, rotated 4 bit.

The package is imported when a file needs it. Matrices are decoded in groups of rows, in float32, and rounded
once; temporaries stay small whatever the size of the matrix. Products in the format itself are used where
the package has one for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import PreparedLinear, WeightFormat
from .kitchen_products import ConvRotInt4Linear, Int8Linear, Mxfp8Linear, Nvfp4Linear, product_problem
from .scaled import ScaledFormat

TILE_ROWS = 128  # block scales lie in tiles of 128 rows and 4 columns, as cuBLAS wants them
MXFP8_BLOCK, NVFP4_BLOCK = 32, 16
_VALUES_AT_ONCE = 1 << 22


def _decode_by_rows(
    shape: tuple[int, int], dtype: torch.dtype, device: torch.device, decode: Callable[[slice], Tensor]
) -> Tensor:
    """Decode a matrix in groups of whole tiles of rows; `decode` gives at least the columns of `shape`."""
    rows, columns = shape
    step = max(TILE_ROWS, _VALUES_AT_ONCE // max(columns, 1) // TILE_ROWS * TILE_ROWS)
    matrix = torch.empty(shape, dtype=dtype, device=device)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        matrix[start:stop] = decode(slice(start, start + step))[: stop - start, :columns]
    return matrix


@dataclass(frozen=True)
class Int8Format(ScaledFormat):
    """int8 with a scale per matrix or row.

    Args:
        has_product: multiply in int8 where the device can.
    """

    name: str = "int8_tensorwise"
    has_product: bool = True

    def prepare(
        self, stored: Mapping[str, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> PreparedLinear:
        """The layer for inputs of `dtype`."""
        weight = stored["weight"]
        if self.has_product and product_problem("int8", weight.device, dtype) is None:
            return Int8Linear(weight, stored["weight_scale"], bias, group_size=0)
        return super().prepare(stored, bias, dtype)


@dataclass(frozen=True)
class ConvRotInt8Format(WeightFormat):
    """int8 with a scale per row, of a matrix whose columns were rotated in groups (ConvRot).

    Args:
        group_size: columns of a group, a power of 4.
        has_product: multiply in int8 where the device can.
    """

    name: str = "int8_tensorwise (convrot)"
    group_size: int = 256
    has_product: bool = True

    def materialize(self, stored: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The matrix `[out, in]` in `dtype`, in its own basis."""
        import comfy_kitchen  # noqa: F401  registers the operation below

        weight, scale = stored["weight"], stored["weight_scale"].float().reshape(-1, 1)
        scale = scale.expand(weight.shape[0], 1)

        def decode(rows: slice) -> Tensor:
            return torch.ops.comfy_kitchen.dequantize_int8_convrot_weight(
                weight[rows].contiguous(), scale[rows].contiguous(), self.group_size
            )

        return _decode_by_rows((weight.shape[0], weight.shape[1]), dtype, weight.device, decode)

    def prepare(
        self, stored: Mapping[str, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> PreparedLinear:
        """The layer for inputs of `dtype`."""
        weight = stored["weight"]
        if self.has_product and product_problem("int8", weight.device, dtype) is None:
            return Int8Linear(weight, stored["weight_scale"], bias, self.group_size)
        return super().prepare(stored, bias, dtype)


@dataclass(frozen=True)
class ConvRotInt4Format(WeightFormat):
    """4 bit, two in a byte, with a scale per row, of a matrix whose columns were rotated in groups.

    Args:
        group_size: columns of a group, a power of 4.
        linear_dtype: what products are computed in, "int4" or "int8".
        has_product: multiply in it where the device can.
    """

    name: str = "convrot_w4a4"
    group_size: int = 256
    linear_dtype: str = "int4"
    has_product: bool = True

    def materialize(self, stored: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The matrix `[out, in]` in `dtype`, in its own basis."""
        from comfy_kitchen.tensor import dequantize_convrot_w4a4_weight

        weight, scale = stored["weight"], stored["weight_scale"].float().flatten()

        def decode(rows: slice) -> Tensor:
            return dequantize_convrot_w4a4_weight(
                weight[rows].contiguous(), scale[rows].contiguous(), convrot_groupsize=self.group_size
            )

        shape = (weight.shape[0], 2 * weight.shape[1])
        return _decode_by_rows(shape, dtype, weight.device, decode)

    def prepare(
        self, stored: Mapping[str, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> PreparedLinear:
        """The layer for inputs of `dtype`."""
        weight = stored["weight"]
        if self.has_product and product_problem("int4", weight.device, dtype) is None:
            scale = stored["weight_scale"].flatten()
            return ConvRotInt4Linear(weight, scale, bias, self.group_size, self.linear_dtype)
        return super().prepare(stored, bias, dtype)


@dataclass(frozen=True)
class Mxfp8Format(WeightFormat):
    """e4m3 with a power of two per 32 columns.

    Args:
        shape: rows and columns without the padding to multiples of 32.
        has_product: multiply in mxfp8 where the device can.
    """

    name: str = "mxfp8"
    shape: tuple[int, int] = (0, 0)
    has_product: bool = True

    def materialize(self, stored: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The matrix `[out, in]` in `dtype`."""
        import comfy_kitchen

        weight, scale = stored["weight"], stored["weight_scale"].view(torch.float8_e8m0fnu)

        def decode(rows: slice) -> Tensor:
            return comfy_kitchen.dequantize_mxfp8(weight[rows], scale[rows], torch.float32)

        return _decode_by_rows(self.shape, dtype, weight.device, decode)

    def prepare(
        self, stored: Mapping[str, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> PreparedLinear:
        """The layer for inputs of `dtype`."""
        weight = stored["weight"]
        if self.has_product and product_problem("mxfp8", weight.device, dtype) is None:
            scale = stored["weight_scale"].view(torch.float8_e8m0fnu)
            return Mxfp8Linear(weight, scale, bias, self.shape[0])
        return super().prepare(stored, bias, dtype)


@dataclass(frozen=True)
class Nvfp4Format(WeightFormat):
    """e2m1, two in a byte, with an e4m3 scale per 16 columns, a float32 scale per matrix and perhaps one
    factor per input channel (`pre_quant_scale`).

    Args:
        shape: rows and columns without the padding to multiples of 16.
        has_product: multiply in nvfp4 where the device can.
    """

    name: str = "nvfp4"
    shape: tuple[int, int] = (0, 0)
    has_product: bool = True

    def materialize(self, stored: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The matrix `[out, in]` in `dtype`; the factors of the input are in its columns."""
        import comfy_kitchen

        weight, scale = stored["weight"], stored["weight_scale"].view(torch.float8_e4m3fn)
        whole, factors = stored["weight_scale_2"].float().reshape(()), stored.get("pre_quant_scale")

        def decode(rows: slice) -> Tensor:
            matrix = comfy_kitchen.dequantize_nvfp4(weight[rows], whole, scale[rows], torch.float32)
            return matrix if factors is None else matrix[:, : self.shape[1]] * factors.float()

        return _decode_by_rows(self.shape, dtype, weight.device, decode)

    def prepare(
        self, stored: Mapping[str, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> PreparedLinear:
        """The layer for inputs of `dtype`."""
        weight = stored["weight"]
        if self.has_product and product_problem("nvfp4", weight.device, dtype) is None:
            scales = (stored["weight_scale"].view(torch.float8_e4m3fn), stored["weight_scale_2"].float())
            return Nvfp4Linear(weight, *scales, bias, stored.get("pre_quant_scale"), self.shape[0])
        return super().prepare(stored, bias, dtype)
