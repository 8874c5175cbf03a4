"""ggml's blocks of 32 values, and how the fields of a block are read.

A block is a run of consecutive values of one row with a scale of its own. The decoders here and in
`gguf_kquants` take uint8 ``[blocks, bytes of a block]`` and return float32 ``[blocks, values of a block]``.
They compute in the order in which ggml does, so the results are equal bit for bit.

Layouts: https://github.com/ggml-org/ggml (ggml-common.h) and quants.py of the Python package `gguf`.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# What the 4-bit numbers of the IQ4 types stand for: finer around zero.
_IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def half(blocks: Tensor, start: int) -> Tensor:
    """The float16 at byte `start` of each block, as float32 ``[blocks, 1]``."""
    field = blocks[:, start : start + 2].clone(memory_format=torch.contiguous_format)  # at an even address
    return field.view(torch.float16).float()


def unpacked(fields: Tensor, bits: int) -> Tensor:
    """Small numbers of bytes ``[..., w]``, lowest bits first: uint8 ``[..., 8 // bits, w]``."""
    mask = (1 << bits) - 1
    return torch.stack([(fields >> shift) & mask for shift in range(0, 8, bits)], dim=-2)


def iq4_levels(numbers: Tensor) -> Tensor:
    """What 4-bit numbers of the IQ4 types stand for, float32 of the same shape."""
    # A graph has the table as a constant of its own; torch warns of caches inside of it.
    make = _iq4_table if torch.compiler.is_compiling() else _kept_iq4_table
    table = make(numbers.device)
    return table.index_select(0, numbers.reshape(-1).int()).view(numbers.shape)


def _iq4_table(device: torch.device) -> Tensor:
    return torch.tensor(_IQ4_LEVELS, dtype=torch.float32, device=device)


@cache
def _kept_iq4_table(device: torch.device) -> Tensor:
    """The same tensor for a device each time: sending it again would make the host wait for the device."""
    with torch.inference_mode(False):
        return _iq4_table(device)


def q4_0(blocks: Tensor) -> Tensor:
    """18 bytes: scale, 16 bytes of two 4-bit numbers (the first 16 values in the low halves)."""
    numbers = unpacked(blocks[:, 2:], 4).flatten(1).float()
    return numbers.sub_(8).mul_(half(blocks, 0))


def q4_1(blocks: Tensor) -> Tensor:
    """20 bytes: scale, minimum, numbers as in Q4_0."""
    numbers = unpacked(blocks[:, 4:], 4).flatten(1).float()
    return numbers.mul_(half(blocks, 0)).add_(half(blocks, 2))


def _with_fifth_bit(low: Tensor, high: Tensor) -> Tensor:
    """5-bit numbers ``[blocks, 32]``: four bits as in Q4_0, the fifth of value i is bit i of four bytes."""
    fifth = unpacked(high.unsqueeze(-1), 1).flatten(1)
    return (unpacked(low, 4).flatten(1) | (fifth << 4)).float()


def q5_0(blocks: Tensor) -> Tensor:
    """22 bytes: scale, 32 fifth bits, numbers."""
    return _with_fifth_bit(blocks[:, 6:], blocks[:, 2:6]).sub_(16).mul_(half(blocks, 0))


def q5_1(blocks: Tensor) -> Tensor:
    """24 bytes: scale, minimum, 32 fifth bits, numbers."""
    numbers = _with_fifth_bit(blocks[:, 8:], blocks[:, 4:8])
    return numbers.mul_(half(blocks, 0)).add_(half(blocks, 2))


def q8_0(blocks: Tensor) -> Tensor:
    """34 bytes: scale, 32 signed bytes."""
    return blocks[:, 2:].view(torch.int8).float().mul_(half(blocks, 0))


def iq4_nl(blocks: Tensor) -> Tensor:
    """18 bytes as Q4_0; the numbers stand for levels of a table."""
    return iq4_levels(unpacked(blocks[:, 2:], 4).flatten(1)).mul_(half(blocks, 0))
