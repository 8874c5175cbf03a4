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
TIME_ROWS = 32  # of the time table and a block's modulation, per timestep
MARGIN = 1.05  # what an allocator loses by rounding and gaps


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
    longest_run: int | None = None,
) -> int:
    """Peak bytes of one forward's activations; without weights and the attention library's own memory.

    The sum of what ``attention.py``, ``feed_forward.py`` and ``rows.py`` hold at their peak, and what
    tests/wanvideo/transformer/test_memory.py holds to measurement: at least the peak, at most 1.25 times it.

    Args:
        config: of the transformer.
        tokens: length of the sequence.
        dtype: of the token stream.
        row_chunks: see ``RunOptions``.
        batch: videos computed together.
        rope_function: one of ``rope.ROPE_FUNCTIONS``.
        longest_run: most neighbouring tokens of one timestep (a frame's, where each frame has its own);
            ``None`` is all.
    """
    row = config.dim * dtype.itemsize
    chunk = -(-tokens // max(1, row_chunks))
    part = min(chunk, longest_run or tokens)  # rows of one call of a row function
    piece = min(PIECE_ROWS, part) * config.dim
    norms, gate = _temporary_bytes(dtype, rope_function)
    collected = batch * chunk * row
    stream = batch * tokens * row
    is_split = batch > 1 or part < tokens
    keys_values = part * row * 2 + max(piece * norms, part * row)
    queries = part * row * 2 + piece * norms + (collected if batch > 1 or part < chunk else 0)
    outputs = collected + part * row + piece * gate
    attention = 3 * stream + max(queries, 2 * collected, outputs, keys_values if is_split else 0)
    feed_forward = stream + part * row + max(part * config.ffn_dim * dtype.itemsize, piece * gate)
    rope = tokens * HEAD_WIDTH * FLOAT32_BYTES
    timesteps = -(-tokens // (longest_run or tokens))
    tables = (TIME_ROWS * timesteps * FLOAT32_BYTES + config.text_length * dtype.itemsize) * config.dim
    ends = max(_embedding_bytes(config, dtype), _head_bytes(config, tokens, dtype)) * batch * tokens
    return int(MARGIN * (max(attention + rope, feed_forward + rope, ends) + tables))


def _temporary_bytes(dtype: torch.dtype, rope_function: str) -> tuple[int, int]:
    """Bytes per value of a piece of rows: in a norm or a rotation, and in a gated addition."""
    rotation = 2 * FLOAT32_BYTES if rope_function == "default" else 0
    if dtype == torch.float32:
        return max(FLOAT32_BYTES, rotation), 0
    return max(2 * FLOAT32_BYTES + dtype.itemsize, rotation), 3 * FLOAT32_BYTES


def _embedding_bytes(config: WanConfig, dtype: torch.dtype) -> int:
    """Bytes per token of the patch embedding: in float32, and as the blocks take them."""
    return config.dim * (FLOAT32_BYTES + dtype.itemsize)


def _head_bytes(config: WanConfig, tokens: int, dtype: torch.dtype) -> int:
    """Bytes per token of the head: the stream, a piece of it in float32 twice, patches in two orders."""
    piece = min(PIECE_ROWS, tokens) * config.dim * 2 * FLOAT32_BYTES // tokens
    patches = 2 * PATCH_VALUES * config.out_channels * FLOAT32_BYTES
    return config.dim * dtype.itemsize + piece + patches + HEAD_WIDTH * FLOAT32_BYTES
