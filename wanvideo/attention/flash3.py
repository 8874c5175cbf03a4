"""FlashAttention 3 (package ``flash_attn_interface``, the ``hopper`` folder of Dao-AILab/flash-attention)."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from .backend import AttentionBackend
from .casting import in_half_precision, refuse_other_devices, refuse_other_dtypes, refuse_wide_heads


@in_half_precision
def flash_attention_3(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The fixed-length function; early versions return the log-sum-exp beside the result.

    float32 is computed in float16 and cast back.
    """
    attended = import_module("flash_attn_interface").flash_attn_func(query, key, value, causal=False)
    if isinstance(attended, tuple):
        attended = attended[0]
    return attended.flatten(2)


def supports(device: torch.device, dtype: torch.dtype, head_width: int) -> str | None:
    """Hopper; builds for Ampere and Ada exist, and the self-test tells whether this is one."""
    return (
        refuse_other_devices(device, lowest=8, highest=9, names="an NVIDIA Hopper GPU (H100, H200)")
        or refuse_other_dtypes(dtype)
        or refuse_wide_heads(head_width, 256)
    )


FLASH_ATTENTION_3 = AttentionBackend(
    "flash_attn_3", flash_attention_3, "flash_attn_interface", supports, 0.02
)
