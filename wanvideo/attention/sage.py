"""SageAttention 1 and 2 (package ``sageattention``, github.com/thu-ml/SageAttention): 8-bit attention."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import torch
from torch import Tensor

from .backend import AttentionBackend
from .casting import in_half_precision, refuse_other_devices, refuse_other_dtypes, refuse_wide_heads

TOLERANCE = 0.1  # 8-bit queries, keys and values: 2 to 5 % on random input


@in_half_precision
def sage_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The library picks its kernel by the GPU; float32 is computed in float16 and cast back."""
    attended = import_module("sageattention").sageattn(
        query, key, value, tensor_layout="NHD", is_causal=False
    )
    return attended.flatten(2)


@in_half_precision
def sage_attention_varlen(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The kernel for packed sequences (Triton on every GPU): the batch is packed, row after row.

    float32 is computed in float16 and cast back.
    """
    batch, rows, keys = query.shape[0], query.shape[1], key.shape[1]
    attended = import_module("sageattention").sageattn_varlen(
        query.flatten(0, 1),
        key.flatten(0, 1),
        value.flatten(0, 1),
        cu_seqlens_q=_starts(batch, rows, query.device),
        cu_seqlens_k=_starts(batch, keys, query.device),
        max_seqlen_q=rows,
        max_seqlen_k=keys,
        is_causal=False,
    )
    return attended.unflatten(0, (batch, rows)).flatten(2)


def _starts(batch: int, length: int, device: torch.device) -> Tensor:
    return torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=device)


def supports(device: torch.device, dtype: torch.dtype, head_width: int) -> str | None:
    """NVIDIA GPUs from Turing on, heads of up to 128 channels."""
    return (
        refuse_other_devices(device, lowest=7, highest=99, names="an NVIDIA GPU from the RTX 20 series on")
        or refuse_other_dtypes(dtype)
        or refuse_wide_heads(head_width, 128)
    )


SAGE_ATTENTION = AttentionBackend("sageattn", sage_attention, "sageattention", supports, TOLERANCE)
# Attention runs between the compiled functions here, never inside one, so the name only needs to be known.
SAGE_ATTENTION_COMPILED = replace(SAGE_ATTENTION, name="sageattn_compiled")
SAGE_ATTENTION_VARLEN = replace(SAGE_ATTENTION, name="sageattn_varlen", function=sage_attention_varlen)
