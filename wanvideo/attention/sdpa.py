"""Attention through PyTorch's scaled_dot_product_attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(K)) v``; PyTorch picks the kernel, cuDNN among them, in its own order.

    The transposes are views: flash, efficient and cuDNN attention read strided heads, and a contiguous copy
    of each would cost three times the activation for nothing.

    Args:
        query: ``[B, L, N, K]``.
        key: ``[B, M, N, K]``.
        value: ``[B, M, N, K]``.

    Returns:
        ``[B, L, N * K]``.
    """
    attended = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    )
    return attended.transpose(1, 2).flatten(2)
