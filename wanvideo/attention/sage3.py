"""SageAttention 3 (package ``sageattn3``, folder ``sageattention3_blackwell``): 4-bit attention on Blackwell.

Used in every step and block it is chosen for. Its authors advise 8-bit attention in the first and last
step: an attention override does that.
"""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from .backend import AttentionBackend
from .casting import in_half_precision, refuse_other_devices, refuse_other_dtypes, refuse_wide_heads


@in_half_precision
def sage_attention_3(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Heads before rows; the keys are copied, since the library subtracts their mean in place.

    float32 is computed in float16 and cast back.
    """
    attended = import_module("sageattn3").sageattn3_blackwell(
        query.transpose(1, 2).contiguous(),
        key.transpose(1, 2).clone(memory_format=torch.contiguous_format),
        value.transpose(1, 2).contiguous(),
        is_causal=False,
    )
    return attended.transpose(1, 2).flatten(2)


def supports(device: torch.device, dtype: torch.dtype, head_width: int) -> str | None:
    """Blackwell, heads of up to 128 channels."""
    return (
        refuse_other_devices(device, lowest=10, highest=99, names="an NVIDIA Blackwell GPU (RTX 50 series)")
        or refuse_other_dtypes(dtype)
        or refuse_wide_heads(head_width, 128)
    )


SAGE_ATTENTION_3 = AttentionBackend("sageattn_3", sage_attention_3, "sageattn3", supports, 0.3)
