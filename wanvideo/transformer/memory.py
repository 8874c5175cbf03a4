"""How much memory a forward needs beside the weights."""

from __future__ import annotations

import torch

from .config import HEAD_WIDTH, WanConfig

FLOAT32_BYTES = 4
# Tensors of tokens x dim alive at the peak of a block, in bytes per value (benchmarks/measure.py):
# self-attention (queries and keys pass through float32 for norm and RoPE), and the feed-forward beside its
# hidden layer. tests/wanvideo/transformer/test_memory.py holds them to what is measured.
ATTENTION_BYTES = {torch.float32: 7.5 * 4, torch.bfloat16: 10.6 * 2, torch.float16: 10.6 * 2}
FEED_FORWARD_STREAMS = 4.6


def activation_bytes(config: WanConfig, tokens: int, dtype: torch.dtype, *, batch: int = 1) -> int:
    """Peak bytes of one forward's activations.

    Args:
        config: of the transformer.
        tokens: length of the sequence.
        dtype: of the token stream.
        batch: videos computed together.
    """
    values = batch * tokens * config.dim
    attention = ATTENTION_BYTES[dtype] * values
    feed_forward = (FEED_FORWARD_STREAMS * values + batch * tokens * config.ffn_dim) * dtype.itemsize
    rope = tokens * HEAD_WIDTH * FLOAT32_BYTES
    return int(max(attention, feed_forward) + rope)
