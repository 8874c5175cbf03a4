"""FlashAttention 2 (package ``flash_attn``, github.com/Dao-AILab/flash-attention)."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from .backend import AttentionBackend
from .casting import in_half_precision, refuse_other_devices, refuse_other_dtypes, refuse_wide_heads


@in_half_precision
def flash_attention_2(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The fixed-length function: no row is padding, so nothing has to be packed.

    float32 is computed in float16 and cast back.
    """
    return import_module("flash_attn").flash_attn_func(query, key, value, causal=False).flatten(2)


def supports(device: torch.device, dtype: torch.dtype, head_width: int) -> str | None:
    """NVIDIA GPUs from Ampere on, heads of up to 256 channels."""
    return (
        refuse_other_devices(device, lowest=8, highest=99, names="an NVIDIA GPU from the RTX 30 series on")
        or refuse_other_dtypes(dtype)
        or refuse_wide_heads(head_width, 256)
    )


FLASH_ATTENTION_2 = AttentionBackend("flash_attn_2", flash_attention_2, "flash_attn", supports, 0.02)
