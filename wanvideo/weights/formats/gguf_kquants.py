"""ggml's blocks of 256 values: groups of 16 or 32 with small integer scales, multiplied by one of the block.

See `gguf_blocks` for what the decoders take and return.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .gguf_blocks import half, iq4_levels, unpacked


def q2_k(blocks: Tensor) -> Tensor:
    """84 bytes: 16 pairs of 4-bit scale and minimum, 256 2-bit numbers, scale, scale of the minima."""
    pairs = blocks[:, :16]
    scales = half(blocks, 80) * (pairs & 15).float()
    minima = half(blocks, 82) * (pairs >> 4).float()
    numbers = unpacked(blocks[:, 16:80].unflatten(1, (2, 32)), 2).reshape(-1, 16, 16).float()
    return numbers.mul_(scales.unsqueeze(-1)).sub_(minima.unsqueeze(-1)).flatten(1)


def q3_k(blocks: Tensor) -> Tensor:
    """110 bytes: 256 third bits, 256 2-bit numbers, 16 6-bit scales, scale. The numbers are -4 to 3."""
    third = unpacked(blocks[:, :32].unsqueeze(1), 1).reshape(-1, 16, 16)
    low = unpacked(blocks[:, 32:96].unflatten(1, (2, 32)), 2).reshape(-1, 16, 16)
    # Four low bits of scales 0 to 7 and 8 to 15 share bytes 0 to 7, two high bits of each fourth one a byte.
    scales = unpacked(blocks[:, 96:104], 4).flatten(1) | (unpacked(blocks[:, 104:108], 2).flatten(1) << 4)
    scale = half(blocks, 108) * scales.float().sub_(32)
    return (low | (third << 2)).float().sub_(4).mul_(scale.unsqueeze(-1)).flatten(1)


def _scales_and_minima(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """What Q4_K and Q5_K have in their first 16 bytes: scales and minima of the 8 groups ``[blocks, 8, 1]``.

    After the two float16: four bytes for scales, four for minima, four shared ones. Groups 0 to 3 have all
    six bits in their own byte; groups 4 to 7 the low four in a shared byte, the high two above those of
    groups 0 to 3.
    """
    first, second, shared = blocks[:, 4:16].unflatten(1, (3, 4)).unbind(1)
    scales = torch.cat([first & 63, (shared & 15) | ((first >> 6) << 4)], 1)
    minima = torch.cat([second & 63, (shared >> 4) | ((second >> 6) << 4)], 1)
    return (
        (half(blocks, 0) * scales.float()).unsqueeze(-1),
        (half(blocks, 2) * minima.float()).unsqueeze(-1),
    )


def _four_bits(fields: Tensor) -> Tensor:
    """128 bytes: each 32 hold a group in their low and the next one in their high halves."""
    return unpacked(fields.unflatten(1, (4, 32)), 4).reshape(-1, 8, 32)


def q4_k(blocks: Tensor) -> Tensor:
    """144 bytes: scale, scale of the minima, 8 pairs of 6 bits, 256 4-bit numbers."""
    scales, minima = _scales_and_minima(blocks)
    return _four_bits(blocks[:, 16:]).float().mul_(scales).sub_(minima).flatten(1)


def q5_k(blocks: Tensor) -> Tensor:
    """176 bytes: as Q4_K, with 256 fifth bits before the numbers."""
    scales, minima = _scales_and_minima(blocks)
    fifth = unpacked(blocks[:, 16:48], 1)
    return (_four_bits(blocks[:, 48:]) | (fifth << 4)).float().mul_(scales).sub_(minima).flatten(1)


def q6_k(blocks: Tensor) -> Tensor:
    """210 bytes: 256 times four low bits, 256 times two high bits, 16 signed 8-bit scales, scale."""
    low = unpacked(blocks[:, :128].unflatten(1, (2, 64)), 4).reshape(-1, 16, 16)
    high = unpacked(blocks[:, 128:192].unflatten(1, (2, 32)), 2).reshape(-1, 16, 16)
    scales = half(blocks, 208) * blocks[:, 192:208].view(torch.int8).float()
    return (low | (high << 4)).float().sub_(32).mul_(scales.unsqueeze(-1)).flatten(1)


def iq4_xs(blocks: Tensor) -> Tensor:
    """136 bytes: scale, 8 times two high and four low bits of the group scales, 256 4-bit numbers."""
    high = unpacked(blocks[:, 2:4].unsqueeze(-1), 2).flatten(1)
    low = unpacked(blocks[:, 4:8].unsqueeze(-1), 4).flatten(1)
    scales = half(blocks, 0) * (low | (high << 4)).float().sub_(32)
    levels = iq4_levels(unpacked(blocks[:, 8:].unflatten(1, (8, 16)), 4).reshape(-1, 8, 32))
    return levels.mul_(scales.unsqueeze(-1)).flatten(1)
