"""Half precision for libraries that compute in nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from .backend import HALF_PRECISION, AttentionFunction


def half_precision_dtype(*tensors: Tensor) -> torch.dtype:
    """The first half-precision dtype among the tensors, else float16.

    float16 keeps 11 bits where bfloat16 keeps 8; queries and keys are normed, so its range suffices.
    """
    return next((t.dtype for t in tensors if t.dtype in HALF_PRECISION), torch.float16)


def in_half_precision(function: AttentionFunction) -> AttentionFunction:
    """``function`` for any floating dtype: cast to one half-precision dtype, the result cast back.

    The result has the dtype of ``value``: queries and keys may come wider from RoPE.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        dtype = half_precision_dtype(value, query, key)
        return function(query.to(dtype), key.to(dtype), value.to(dtype)).to(value.dtype)

    return attend


def refuse_other_dtypes(dtype: torch.dtype) -> str | None:
    """Reason why a dtype cannot be brought to half precision."""
    if dtype in (*HALF_PRECISION, torch.float32):
        return None
    return f"it computes in float16 and bfloat16, not in {str(dtype).removeprefix('torch.')}"


def refuse_other_devices(device: torch.device, *, lowest: int, highest: int, names: str) -> str | None:
    """Reason why a device is not an NVIDIA GPU of a range of generations.

    Args:
        device: where the tensors are.
        lowest: first major compute capability.
        highest: last major compute capability.
        names: of those GPUs, for the message.
    """
    if device.type != "cuda":
        return f"it needs {names}, and the model runs on {device.type}"
    major, minor = torch.cuda.get_device_capability(device)
    if lowest <= major <= highest:
        return None
    return f"it needs {names}; {torch.cuda.get_device_name(device)} is of generation {major}.{minor}"


def refuse_wide_heads(head_width: int, largest: int) -> str | None:
    """Reason why a head is too wide."""
    return None if head_width <= largest else f"heads of {head_width} channels are wider than {largest}"
