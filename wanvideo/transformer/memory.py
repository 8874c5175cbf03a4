"""How much memory a forward needs beside the weights."""

from __future__ import annotations

import torch

from .config import WanConfig

STREAM_COPIES = (
    9.5  # tokens x dim x element bytes alive at the peak of a block, measured: benchmarks/README.md
)
FLOAT32_BYTES = 4


def activation_bytes(config: WanConfig, tokens: int, dtype: torch.dtype, *, batch: int = 1) -> int:
    """Peak bytes of one forward's activations.

    Args:
        config: of the transformer.
        tokens: length of the sequence.
        dtype: of the token stream.
        batch: videos computed together.
    """
    stream = batch * tokens * config.dim * dtype.itemsize
    hidden = batch * tokens * config.ffn_dim * dtype.itemsize
    rope = tokens * 128 * FLOAT32_BYTES
    return int(STREAM_COPIES * stream + 2 * hidden + rope)
