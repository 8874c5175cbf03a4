"""Pack numbers in ggml's block types. Simple: one pass, no search for the best scales as llama.cpp does.

The Python package `gguf` packs Q4_0 to Q8_0; the other types are packed here, for files of sane values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_IQ4_LEVELS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)


def pack(matrix: Floats, kind: str) -> Bytes:
    """Pack the rows of a float32 matrix in a ggml type by its name: uint8 ``[rows, bytes of a row]``."""
    if kind not in _PACKERS:
        import gguf

        return gguf.quants.quantize(matrix, gguf.GGMLQuantizationType[kind])
    values, packer = _PACKERS[kind]
    packed = packer(np.ascontiguousarray(matrix, np.float32).reshape(-1, values))
    return packed.reshape(matrix.shape[0], -1)


def _half(values: Floats) -> tuple[Bytes, Floats]:
    """One value per block as float16: its two bytes, and what they stand for."""
    rounded = values.reshape(-1, 1).astype(np.float16)
    return rounded.view(np.uint8), rounded.astype(np.float32)


def _joined(numbers: NDArray[np.integer], bits: int) -> Bytes:
    """Numbers ``[..., 8 // bits, w]`` of `bits` bits as bytes ``[..., w]``, the first in the lowest bits."""
    shifts = np.arange(0, 8, bits).reshape(-1, 1)
    return (numbers.astype(np.int64) << shifts).sum(-2).astype(np.uint8)


def _divided(values: Floats, scale: Floats) -> Floats:
    return np.divide(values, scale, out=np.zeros_like(values), where=scale != 0)


def _quantised(values: Floats, scale: Floats, low: int, high: int) -> NDArray[np.int64]:
    return np.rint(_divided(values, scale)).clip(low, high).astype(np.int64)


def _with_minima(blocks: Floats, groups: int, bits: int, scale_bits: int) -> tuple[NDArray, ...]:
    """Numbers ``[blocks, groups, n]``, scales and minima ``[blocks, groups]``, and the two halves' bytes."""
    values = blocks.reshape(len(blocks), groups, -1)
    lowest = np.minimum(values.min(-1), 0)
    wanted = (values.max(-1) - lowest) / (2**bits - 1)
    largest = 2**scale_bits - 1
    scale_bytes, scale = _half(wanted.max(-1) / largest)
    minimum_bytes, minimum = _half(-lowest.min(-1) / largest)
    scales = _quantised(wanted, np.broadcast_to(scale, wanted.shape), 0, largest)
    minima = _quantised(-lowest, np.broadcast_to(minimum, lowest.shape), 0, largest)
    step = np.broadcast_to((scale * scales)[..., None], values.shape).astype(np.float32)
    numbers = _quantised((values + (minimum * minima)[..., None]).astype(np.float32), step, 0, 2**bits - 1)
    return numbers, scales, minima, scale_bytes, minimum_bytes


def _signed(
    blocks: Floats, groups: int, highest: int, largest_scale: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Bytes]:
    """Numbers -highest - 1 to highest, scales, and the bytes of the block's scale."""
    values = blocks.reshape(len(blocks), groups, -1)
    wanted = (np.abs(values).max(-1) / highest).astype(np.float32)
    scale_bytes, scale = _half(wanted.max(-1) / largest_scale)
    scales = _quantised(wanted, np.broadcast_to(scale, wanted.shape), 0, largest_scale)
    step = np.broadcast_to((scale * scales)[..., None], values.shape).astype(np.float32)
    return _quantised(values, step, -highest - 1, highest), scales, scale_bytes


def _q2_k(blocks: Floats) -> Bytes:
    numbers, scales, minima, scale, minimum = _with_minima(blocks, 16, 2, 4)
    fields = _joined(numbers.reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return np.concatenate([(scales | minima << 4).astype(np.uint8), fields, scale, minimum], 1)


def _q3_k(blocks: Floats) -> Bytes:
    numbers, scales, scale = _signed(blocks, 16, 3, 31)
    numbers, scales = numbers + 4, scales + 32
    third = _joined((numbers >> 2).reshape(-1, 8, 32), 1)
    low = _joined((numbers & 3).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    low_scales = _joined((scales & 15).reshape(-1, 2, 8), 4)
    high_scales = _joined((scales >> 4).reshape(-1, 4, 4), 2)
    return np.concatenate([third, low, low_scales, high_scales, scale], 1)


def _six_bit_pairs(scales: NDArray[np.int64], minima: NDArray[np.int64]) -> Bytes:
    first = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    second = minima[:, :4] | (minima[:, 4:] >> 4) << 6
    shared = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4
    return np.concatenate([first, second, shared], 1).astype(np.uint8)


def _q4_k(blocks: Floats) -> Bytes:
    numbers, scales, minima, scale, minimum = _with_minima(blocks, 8, 4, 6)
    fields = _joined(numbers.reshape(-1, 4, 2, 32), 4).reshape(-1, 128)
    return np.concatenate([scale, minimum, _six_bit_pairs(scales, minima), fields], 1)


def _q5_k(blocks: Floats) -> Bytes:
    numbers, scales, minima, scale, minimum = _with_minima(blocks, 8, 5, 6)
    fifth = _joined(numbers >> 4, 1)
    fields = _joined((numbers & 15).reshape(-1, 4, 2, 32), 4).reshape(-1, 128)
    return np.concatenate([scale, minimum, _six_bit_pairs(scales, minima), fifth, fields], 1)


def _q6_k(blocks: Floats) -> Bytes:
    numbers, scales, scale = _signed(blocks, 16, 31, 127)
    numbers = numbers.reshape(-1, 256) + 32
    low = _joined((numbers & 15).reshape(-1, 2, 2, 64), 4).reshape(-1, 128)
    high = _joined((numbers >> 4).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return np.concatenate([low, high, scales.astype(np.int8).view(np.uint8), scale], 1)


def _nearest_levels(values: Floats) -> NDArray[np.int64]:
    return np.searchsorted((_IQ4_LEVELS[1:] + _IQ4_LEVELS[:-1]) / 2, values)


def _iq4_nl(blocks: Floats) -> Bytes:
    scale_bytes, scale = _half(np.abs(blocks).max(-1) / _IQ4_LEVELS[-1])
    numbers = _nearest_levels(_divided(blocks, np.broadcast_to(scale, blocks.shape)))
    return np.concatenate([scale_bytes, _joined(numbers.reshape(-1, 2, 16), 4)], 1)


def _iq4_xs(blocks: Floats) -> Bytes:
    values = blocks.reshape(len(blocks), 8, 32)
    wanted = np.abs(values).max(-1) / _IQ4_LEVELS[-1]
    scale_bytes, scale = _half(wanted.max(-1) / 31)
    scales = _quantised(wanted, np.broadcast_to(scale, wanted.shape), 0, 31)
    step = np.broadcast_to((scale * scales)[..., None], values.shape).astype(np.float32)
    numbers = _nearest_levels(_divided(values, step))
    high = _joined(((scales + 32) >> 4).reshape(-1, 2, 4, 1), 2).reshape(-1, 2)
    low = _joined(((scales + 32) & 15).reshape(-1, 4, 2, 1), 4).reshape(-1, 4)
    fields = _joined(numbers.reshape(-1, 8, 2, 16), 4).reshape(-1, 128)
    return np.concatenate([scale_bytes, high, low, fields], 1)


_PACKERS: dict[str, tuple[int, Callable[[Floats], Bytes]]] = {
    "Q2_K": (256, _q2_k),
    "Q3_K": (256, _q3_k),
    "Q4_K": (256, _q4_k),
    "Q5_K": (256, _q5_k),
    "Q6_K": (256, _q6_k),
    "IQ4_NL": (32, _iq4_nl),
    "IQ4_XS": (256, _iq4_xs),
}
