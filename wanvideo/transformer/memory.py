"""How much memory a forward needs beside the weights, and into how many row chunks it is split."""

from __future__ import annotations

import torch

from .chunking import PIECE_ROWS
from .config import HEAD_WIDTH, WanConfig

FLOAT32_BYTES = 4
ROWS_PER_CHUNK = 4096  # enough for matrix products at full speed on the largest GPUs
FINE_CHUNKS = 16
FINE_ROWS = 512  # fewer rows per chunk cost more time than they save memory
PATCH_VALUES = 4  # spatial positions per token


def row_chunks_for(tokens: int, *, rope_function: str = "comfy") -> int:
    """Row chunks of a block for a number of tokens.

    It depends on nothing else, so that a result does not depend on the memory that happens to be free.

    Args:
        tokens: length of the sequence.
        rope_function: ``comfy_chunked`` asks for at least 16 chunks where the tokens suffice for chunks of
            512 rows.
    """
    chunks = -(-tokens // ROWS_PER_CHUNK)
    if rope_function == "comfy_chunked":
        chunks = max(chunks, min(FINE_CHUNKS, tokens // FINE_ROWS))
    return max(1, chunks)


def activation_bytes(
    config: WanConfig,
    tokens: int,
    dtype: torch.dtype,
    *,
    row_chunks: int = 1,
    batch: int = 1,
    rope_function: str = "comfy",
    runs: int = 1,
) -> int:
    """Peak bytes of one forward's activations, weights and the attention library's own memory excepted.

    The sum of what ``attention.py``, ``feed_forward.py`` and ``rows.py`` hold at their peak; held to what
    is measured by tests/wanvideo/transformer/test_memory.py: at least the peak, at most 1.25 times it.

    Args:
        config: of the transformer.
        tokens: length of the sequence.
        dtype: of the token stream.
        row_chunks: see ``RunOptions``.
        batch: videos computed together.
        rope_function: one of ``rope.ROPE_FUNCTIONS``.
        runs: runs of tokens with a timestep of their own (frames, where each frame has its own).
    """
    row = config.dim * dtype.itemsize
    chunk = -(-tokens // max(1, row_chunks))
    is_split = row_chunks > 1 or runs > 1 or batch > 1
    stream = batch * tokens * row
    rotation = 2 * FLOAT32_BYTES if rope_function == "default" else 0
    cast = 0 if dtype == torch.float32 else 3 * FLOAT32_BYTES
    temporaries = min(PIECE_ROWS, chunk) * config.dim * max(rotation, cast)
    keys_values = 3 * stream + chunk * row * (3 if is_split else 1) + temporaries
    attention = 3 * stream + chunk * row * (2 * batch + (1 if batch > 1 else 0)) + temporaries
    feed_forward = stream + chunk * (row + config.ffn_dim * dtype.itemsize) + temporaries
    embedding = batch * tokens * config.dim * (dtype.itemsize + FLOAT32_BYTES)
    head = stream + min(PIECE_ROWS, tokens) * config.dim * 2 * FLOAT32_BYTES
    text = 3 * config.text_length * row
    tables = tokens * HEAD_WIDTH * FLOAT32_BYTES + batch * tokens * PATCH_VALUES * config.out_channels * 8
    return max(keys_values, attention, feed_forward, embedding, head) + text + tables
