"""Matrix products in ComfyUI's quantised formats, by comfy_kitchen."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

_FP4_LIMIT, _E4M3_LIMIT = 6.0, 448.0
_SMALLEST_SCALE = 1e-20

Product = Literal["int8", "int4", "mxfp8", "nvfp4"]
# comfy_kitchen's name of the product, the first CUDA compute capability that has it, and whether the
# package's plain PyTorch implementation uses the device's units (int4 would be slower than expanding).
_OPERATIONS: dict[Product, tuple[str, tuple[int, int], bool]] = {
    "int8": ("int8_linear", (7, 5), True),
    "int4": ("convrot_w4a4_linear", (7, 5), False),
    "mxfp8": ("scaled_mm_mxfp8", (10, 0), True),
    "nvfp4": ("scaled_mm_nvfp4", (10, 0), True),
}


def product_problem(product: Product, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a layer is expanded instead of multiplied in its format; None when nothing is in the way."""
    operation, first_capability, is_fast_in_pytorch = _OPERATIONS[product]
    if dtype not in (torch.bfloat16, torch.float16):
        return "the precision is fp32"
    if device.type != "cuda" or torch.version.hip is not None:
        return "only NVIDIA GPUs multiply in it"
    capability = torch.cuda.get_device_capability(device)
    if capability < first_capability:
        return f"it needs compute capability {first_capability}, this GPU has {capability}"
    if find_spec("comfy_kitchen") is None:
        return "the Python package comfy_kitchen is not installed"
    from comfy_kitchen.registry import registry
    from comfy_kitchen.scaled_mm_v2 import has_scaled_mm_v2

    if registry.get_capable_backend(operation) != "eager":
        return None
    if not is_fast_in_pytorch:
        return "this installation of comfy_kitchen has no kernel for it"
    if product != "int8" and not has_scaled_mm_v2():
        return "it needs PyTorch 2.10 or newer"
    return None


@dataclass(frozen=True)
class Int8Linear:
    """``x W^T + b`` in int8; rows of `x` get a scale each.

    Args:
        weight: int8 ``[out, in]``.
        scale: one value or one per row.
        bias: added to the result.
        group_size: columns of a rotated group; 0 when nothing is rotated.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    group_size: int

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``."""
        import comfy_kitchen

        if not x.numel():
            return x.new_empty(*x.shape[:-1], self.weight.shape[0])
        return comfy_kitchen.int8_linear(
            x.contiguous(),
            self.weight,
            self.scale.float(),
            None if self.bias is None else self.bias.to(x.dtype),
            x.dtype,
            convrot=self.group_size > 0,
            convrot_groupsize=self.group_size or 256,
        )


@dataclass(frozen=True)
class ConvRotInt4Linear:
    """``x W^T + b`` with both sides in 4 bit.

    Args:
        weight: ``[out, in / 2]``, two numbers in a byte.
        scale: ``[out]``.
        bias: added to the result.
        group_size: columns of a rotated group.
        linear_dtype: "int4" or "int8".
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    group_size: int
    linear_dtype: str

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``."""
        from comfy_kitchen.tensor import convrot_w4a4_linear

        if not x.numel():
            return x.new_empty(*x.shape[:-1], self.weight.shape[0])
        return convrot_w4a4_linear(
            x.contiguous(),
            self.weight,
            self.scale.float(),
            bias=None if self.bias is None else self.bias.to(x.dtype),
            convrot_groupsize=self.group_size,
            linear_dtype=self.linear_dtype,
        )


@dataclass(frozen=True)
class Mxfp8Linear:
    """``x W^T + b`` with both sides in mxfp8.

    Args:
        weight: e4m3 ``[out, in]``, both padded to multiples of 32.
        scale: e8m0, in the device's tiles.
        bias: ``[out_features]``.
        out_features: rows of the weight without padding.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    out_features: int

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``."""
        import comfy_kitchen

        rows = x.reshape(-1, x.shape[-1])
        if not rows.shape[0]:
            return x.new_empty(*x.shape[:-1], self.out_features)
        quantised, scale = comfy_kitchen.quantize_mxfp8(rows, pad_32x=True)
        product = comfy_kitchen.scaled_mm_mxfp8(quantised, self.weight, scale, self.scale, out_dtype=x.dtype)
        return _cut(product, x, self.out_features, self.bias)


@dataclass(frozen=True)
class Nvfp4Linear:
    """``x W^T + b`` with both sides in nvfp4.

    Args:
        weight: ``[out, in / 2]``, both padded, two numbers in a byte.
        block_scale: e4m3, in the device's tiles.
        scale: one value.
        bias: ``[out_features]``.
        input_factors: ``[in]``, multiplied to the input, or None.
        out_features: rows of the weight without padding.
    """

    weight: Tensor
    block_scale: Tensor
    scale: Tensor
    bias: Tensor | None
    input_factors: Tensor | None
    out_features: int

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``."""
        import comfy_kitchen

        rows = x.reshape(-1, x.shape[-1])
        if not rows.shape[0]:
            return x.new_empty(*x.shape[:-1], self.out_features)
        if self.input_factors is not None:
            rows = rows * self.input_factors.to(rows.dtype)
        largest = torch.linalg.vector_norm(rows, torch.inf, dtype=torch.float32)
        scale = (largest / (_FP4_LIMIT * _E4M3_LIMIT)).clamp(min=_SMALLEST_SCALE)
        quantised, block_scale = comfy_kitchen.quantize_nvfp4(rows, scale, pad_16x=True)
        product = comfy_kitchen.scaled_mm_nvfp4(
            quantised,
            self.weight,
            tensor_scale_a=scale,
            tensor_scale_b=self.scale.reshape(()),
            block_scale_a=block_scale,
            block_scale_b=self.block_scale,
            out_dtype=x.dtype,
        )
        return _cut(product, x, self.out_features, self.bias)


def _cut(product: Tensor, x: Tensor, out_features: int, bias: Tensor | None) -> Tensor:
    """The padded product in the shape the input asks for, with the bias."""
    rows = x.numel() // x.shape[-1]
    product = product[:rows, :out_features]
    if bias is not None:
        product = product.add_(bias.to(product.dtype))
    return product.reshape(*x.shape[:-1], out_features)
