"""Matrix products in fp8 (the `*_fast` settings): both sides in 8 bit, accumulated by the device.

Inputs are quantised as they come, with a scale per row where the device can use one, else per call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
INPUT_DTYPE = torch.float8_e4m3fn
INPUT_LIMIT = torch.finfo(INPUT_DTYPE).max
FIRST_WITH_FP8 = (8, 9)  # CUDA compute capability: Ada
FIRST_WITH_ROW_SCALES = (9, 0)  # Hopper
ALIGNMENT = 16  # both widths of a layer must be multiples
_SMALLEST_AMAX = 1e-12


@dataclass(frozen=True)
class Fp8Linear:
    """``x W^T + b`` with both sides in fp8.

    Args:
        weight: fp8 ``[out, in]``.
        weight_scale: float32, one value; ``[1, out]`` when rows are scaled by the device.
        bias: in the dtype of the result.
        output_scale: float32 ``[out]``, multiplied to the result where the device takes one scale only.
        has_row_scales: whether the device takes a scale per row of both sides.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    output_scale: Tensor | None
    has_row_scales: bool

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``; `x` is left as it is."""
        rows = x.reshape(-1, x.shape[-1])
        shape = (*x.shape[:-1], self.weight.shape[0])
        if not rows.shape[0]:
            return x.new_empty(shape)
        quantised, scale = quantise_rows(rows) if self.has_row_scales else quantise(rows)
        product = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
            quantised,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.weight_scale,
            bias=self.bias if self.output_scale is None else None,
            out_dtype=x.dtype,
        )
        if self.output_scale is not None:
            product.mul_(self.output_scale)
            if self.bias is not None:
                product.add_(self.bias)
        return product.view(shape)


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """fp8 ``[M, K]`` and its one scale, float32 without dimensions."""
    largest = torch.linalg.vector_norm(rows, torch.inf, dtype=torch.float32)
    return _divided(rows, largest.reshape(1, 1), (rows.shape[0], 1)), _scale(largest)


def quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """fp8 ``[M, K]`` and float32 scales ``[M, 1]``."""
    largest = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True, dtype=torch.float32)
    return _divided(rows, largest, largest.shape), _scale(largest)


def _scale(largest: Tensor) -> Tensor:
    return largest.clamp(min=_SMALLEST_AMAX) / INPUT_LIMIT


def _divided(rows: Tensor, largest: Tensor, shape: tuple[int, ...]) -> Tensor:
    factors = (INPUT_LIMIT / largest.clamp(min=_SMALLEST_AMAX)).expand(shape)
    # In the dtype of the input: a float32 copy of it would be the largest tensor of the layer.
    narrow = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
    return torch.mul(rows, factors, out=narrow).to(INPUT_DTYPE)


def prepare_fp8(stored: Mapping[str, Tensor], bias: Tensor | None, dtype: torch.dtype) -> Fp8Linear:
    """The product for a layer of which `layer_problem` is None."""
    weight = stored["weight"]
    scale = stored.get("weight_scale")
    scale = torch.ones((), device=weight.device) if scale is None else scale.float().flatten()
    bias = None if bias is None else bias.to(dtype)
    if has_row_scales(weight, dtype):
        scale = scale.reshape(1, -1).expand(1, weight.shape[0]).contiguous()
        return Fp8Linear(weight, scale, bias, None, has_row_scales=True)
    if scale.numel() == 1:
        return Fp8Linear(weight, scale.reshape(()), bias, None, has_row_scales=False)
    # The largest scale goes into the product, so that the factors after it are at most 1.
    largest = scale.max()
    return Fp8Linear(weight, largest, bias, scale / largest, has_row_scales=False)


def has_row_scales(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether the device multiplies with a scale per row; torch has it for e4m3 and bfloat16 results."""
    if weight.device.type != "cuda" or weight.dtype != torch.float8_e4m3fn or dtype != torch.bfloat16:
        return False
    return torch.cuda.get_device_capability(weight.device) >= FIRST_WITH_ROW_SCALES


def device_problem(device: torch.device) -> str | None:
    """Why `device` has no fp8 product, as the end of a sentence; None when it has one."""
    if device.type != "cuda" or torch.version.hip is not None:
        return "only NVIDIA GPUs multiply in fp8 here"
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < FIRST_WITH_FP8:
        return f"this GPU (compute capability {major}.{minor}) has no fp8 product; 8.9 or newer has"
    return None


def layer_problem(stored: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a layer is expanded instead of multiplied in fp8; None when nothing is in the way.

    Args:
        stored: the layer's tensors but the bias.
        device: where it will be multiplied.
        dtype: of the input.
    """
    weight, scale = stored["weight"], stored.get("weight_scale")
    if weight.dtype not in FP8_DTYPES:
        return "not stored as fp8"
    if any(width % ALIGNMENT for width in weight.shape):
        return f"a width is no multiple of {ALIGNMENT}"
    if scale is not None and scale.numel() not in (1, weight.shape[0]):
        return "scales per block"
    if dtype not in (torch.bfloat16, torch.float16):
        return "the precision is fp32"
    if dtype == torch.float16 and scale is not None and scale.numel() > 1:
        return "scales per row in fp16"  # small rows would leave fp16's range before they are scaled down
    return device_problem(device)


@dataclass(frozen=True)
class ProductReport:
    """Which layers multiply in fp8. Its text is for the log.

    Args:
        multiplied: how many do.
        expanded: how many do not, by reason.
    """

    multiplied: int
    expanded: Mapping[str, int] = field(default_factory=Counter)

    def __str__(self) -> str:
        total = self.multiplied + sum(self.expanded.values())
        reasons = "; ".join(f"{count} are expanded: {reason}" for reason, count in self.expanded.items())
        return f"fp8 products in {self.multiplied} of {total} layers{f' ({reasons})' if reasons else ''}"
