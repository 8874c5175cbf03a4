"""The packed number formats of GGUF files: ggml's block types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import gguf_blocks, gguf_kquants
from .base import WeightFormat

# Values unpacked in one go, at about 12 bytes each: a processor's caches want few, a device large launches.
_AT_ONCE_ON_CPU = 1 << 18
_AT_ONCE_ON_DEVICE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class GgufFormat(WeightFormat):
    """Matrices packed in blocks, uint8 ``[rows, bytes of a row]``; unpacked again for each use.

    Args:
        name: of the ggml type.
        block_values: values of a block.
        block_bytes: its bytes.
        decode_blocks: uint8 ``[blocks, block_bytes]`` to float32 ``[blocks, block_values]``.
    """

    block_values: int
    block_bytes: int
    decode_blocks: Callable[[Tensor], Tensor]

    def materialize(self, stored: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """The matrix ``[rows, columns]`` in `dtype`; of some rows of `weight`, those rows."""
        return self.decode(stored["weight"], dtype)

    def decode(self, packed: Tensor, dtype: torch.dtype) -> Tensor:
        """Unpack uint8 ``[rows, bytes of a row]`` to ``[rows, columns]``.

        Computed in float32 and rounded once. It goes by groups of rows: temporaries stay below 64 MB
        whatever the size of the matrix.
        """
        rows, row_bytes = packed.shape
        columns = row_bytes // self.block_bytes * self.block_values
        matrix = torch.empty(rows, columns, dtype=dtype, device=packed.device)
        at_once = _AT_ONCE_ON_CPU if packed.device.type == "cpu" else _AT_ONCE_ON_DEVICE
        step = max(1, at_once // max(1, columns))
        for start in range(0, rows, step):
            part = packed[start : start + step]
            values = self.decode_blocks(part.reshape(-1, self.block_bytes))
            matrix[start : start + step] = values.view(part.shape[0], columns)
        return matrix


def _format(name: str, values: int, size: int, decode: Callable[[Tensor], Tensor]) -> GgufFormat:
    return GgufFormat(name=name, block_values=values, block_bytes=size, decode_blocks=decode)


_ALL = (
    _format("Q4_0", 32, 18, gguf_blocks.q4_0),
    _format("Q4_1", 32, 20, gguf_blocks.q4_1),
    _format("Q5_0", 32, 22, gguf_blocks.q5_0),
    _format("Q5_1", 32, 24, gguf_blocks.q5_1),
    _format("Q8_0", 32, 34, gguf_blocks.q8_0),
    _format("Q2_K", 256, 84, gguf_kquants.q2_k),
    _format("Q3_K", 256, 110, gguf_kquants.q3_k),
    _format("Q4_K", 256, 144, gguf_kquants.q4_k),
    _format("Q5_K", 256, 176, gguf_kquants.q5_k),
    _format("Q6_K", 256, 210, gguf_kquants.q6_k),
    _format("IQ4_NL", 32, 18, gguf_blocks.iq4_nl),
    _format("IQ4_XS", 256, 136, gguf_kquants.iq4_xs),
)
GGUF_FORMATS: Mapping[str, GgufFormat] = {packing.name: packing for packing in _ALL}


def gguf_format(name: str) -> GgufFormat:
    """The format of a ggml type by its name, "Q4_K" for example. Raises KeyError for another one."""
    return GGUF_FORMATS[name]
