"""GGUF files as checkpoints: tensors are views on the mapped file, packed ones as bytes.

Files of Wan come from converters that differ: a matrix is packed, a convolution flattened (ggml knows four
dimensions, the patch embedding has five), leading dimensions of one are dropped. `shape` is always that of
the official weight.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ModelFileError
from .checkpoint import Checkpoint, StoredTensor
from .formats.gguf import GGUF_FORMATS
from .gguf_header import GgufEntry, GgufHeader, read_gguf_arrays, read_gguf_header
from .safetensors_file import DOWNLOAD_AGAIN, MappedFile, TensorPlace

logger = logging.getLogger(__name__)

_PLAIN = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F64": torch.float64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
# Rare types: unpacked by the package `gguf` while loading, so they save space on disk only.
_UNPACKED_WHILE_LOADING = frozenset(
    ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"]
)
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
_PATCH = (1, 2, 2)
# Parameters of three dimensions, the first of which is one.
_WITH_LEADING_ONE = ("modulation", "scale_shift_table", "emb_pos", "pos_embed")


@dataclass(frozen=True)
class _Kind:
    """A ggml type: its name, and how many values a block of how many bytes holds."""

    name: str
    block_values: int
    block_bytes: int


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file (one that starts with the magic number, whatever it is called).

    Raises:
        ModelFileError: the package `gguf` is missing; cut off, damaged, another version, or a number type
            that cannot be read (the message names the tensor and the type).
    """
    kinds = _ggml_types(path)
    header = read_gguf_header(path)
    if not header.entries and "split.count" not in header.metadata:
        raise ModelFileError(path, "is a GGUF file without any tensors")
    for name, entry in header.entries.items():
        _check_readable(path, name, entry, kinds)
    _check_complete(path, header, kinds)
    file = MappedFile(path, header.data_start)
    shapes = _official_shapes(path, header)
    stored = {
        name: _stored_tensor(path, file, entry, kinds[entry.type_number], shapes[name])
        for name, entry in header.entries.items()
    }
    _report_unpacked(path, header, kinds)
    return Checkpoint(path, stored, header.metadata, (path,))


def _ggml_types(path: Path) -> dict[int, _Kind]:
    """All types the installed package knows, by number."""
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError as error:
        raise ModelFileError(
            path,
            "is a GGUF file, and the Python package gguf that reads it is not installed; run "
            "'python -m pip install gguf' with ComfyUI's Python and start ComfyUI again",
        ) from error
    return {int(kind): _Kind(kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


def _check_readable(path: Path, name: str, entry: GgufEntry, kinds: dict[int, _Kind]) -> None:
    kind = kinds.get(entry.type_number)
    readable = (*_PLAIN, *GGUF_FORMATS, *_UNPACKED_WHILE_LOADING)
    if kind is None or kind.name not in readable:
        shown = kind.name if kind else f"ggml type number {entry.type_number}"
        raise ModelFileError(
            path,
            f"{name} is stored as {shown}, which this version cannot read; get a file of the same model "
            f"in one of {', '.join((*list(_PLAIN)[:3], *GGUF_FORMATS))}",
        )
    if entry.shape and entry.shape[-1] % kind.block_values:
        raise ModelFileError(
            path,
            f"has a damaged GGUF header ({name}: rows of {entry.shape[-1]} values in blocks of "
            f"{kind.block_values}); {DOWNLOAD_AGAIN}",
        )


def _byte_count(entry: GgufEntry, kind: _Kind) -> int:
    return math.prod(entry.shape) // kind.block_values * kind.block_bytes


def _check_complete(path: Path, header: GgufHeader, kinds: dict[int, _Kind]) -> None:
    """The file is as long as its header says. It is read without limits afterwards."""
    size = path.stat().st_size
    stops = {
        name: header.data_start + entry.offset + _byte_count(entry, kinds[entry.type_number])
        for name, entry in header.entries.items()
    }
    beyond = [name for name, stop in stops.items() if stop > size]
    if beyond:
        needed = max(stops.values())
        raise ModelFileError(
            path,
            f"is cut off: {needed - size} of {needed} bytes of the GGUF file are missing (the first weight "
            f"without its bytes is {beyond[0]}); {DOWNLOAD_AGAIN}",
        )


def _stored_tensor(
    path: Path, file: MappedFile, entry: GgufEntry, kind: _Kind, shape: tuple[int, ...]
) -> StoredTensor:
    stop = entry.offset + _byte_count(entry, kind)
    plain = _PLAIN.get(kind.name)
    if plain is not None:
        place = TensorPlace(plain, shape, entry.offset, stop)
        return StoredTensor(shape, plain, partial(file.view, place), partial(file.release, place))
    columns = entry.shape[-1] if entry.shape else 1
    has_own_rows = len(shape) == 2 and shape[-1] % kind.block_values == 0
    if has_own_rows:  # some converters cut the rows of a matrix anew
        columns = shape[-1]
    row_bytes = columns // kind.block_values * kind.block_bytes
    rows = (stop - entry.offset) // row_bytes if row_bytes else 0
    place = TensorPlace(torch.uint8, (rows, row_bytes), entry.offset, stop)
    read, release = partial(file.view, place), partial(file.release, place)
    if kind.name in GGUF_FORMATS and (has_own_rows or len(shape) != 2):
        return StoredTensor(shape, torch.uint8, read, release, kind.name, place.shape)

    def unpack() -> Tensor:
        return _unpacked(path, kind.name, read()).reshape(shape)

    return StoredTensor(shape, torch.float32, unpack, release, is_made=True)


def _unpacked(path: Path, kind: str, packed: Tensor) -> Tensor:
    """A packed tensor in float32, by the package `gguf` where this pack has no format of its own."""
    if kind in GGUF_FORMATS:
        return GGUF_FORMATS[kind].decode(packed, torch.float32)
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        return torch.from_numpy(dequantize(packed.numpy(), GGMLQuantizationType[kind]))
    except NotImplementedError as error:
        raise ModelFileError(
            path, f"has weights stored as {kind}, which the installed package gguf cannot read; update it"
        ) from error


def _report_unpacked(path: Path, header: GgufHeader, kinds: dict[int, _Kind]) -> None:
    found = Counter(kinds[entry.type_number].name for entry in header.entries.values())
    rare = sorted(_UNPACKED_WHILE_LOADING & set(found))
    if rare:
        logger.warning(
            "%s: %d weights are stored as %s; they are unpacked while loading and take the memory of an "
            "unquantised model",
            path.name,
            sum(found[name] for name in rare),
            ", ".join(rare),
        )


def _official_shapes(path: Path, header: GgufHeader) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor as the network has it."""
    noted = read_gguf_arrays(path, (name for name in header.arrays if name.startswith(_ORIGINAL_SHAPE)))
    shapes = {name: entry.shape for name, entry in header.entries.items()}
    for note, sizes in noted.items():
        name = note.removeprefix(_ORIGINAL_SHAPE)
        if name not in shapes:
            continue
        shape = tuple(size for size in sizes if isinstance(size, int) and size >= 0)
        if len(shape) != len(sizes) or math.prod(shape) != math.prod(shapes[name]):
            raise ModelFileError(
                path,
                f"has a damaged GGUF header ({name}: shape {list(shapes[name])} cannot be {list(sizes)}); "
                f"{DOWNLOAD_AGAIN}",
            )
        shapes[name] = shape
    unnoted = [name for name in shapes if _ORIGINAL_SHAPE + name not in noted]
    return {**shapes, **{name: _guessed_shape(name, shapes) for name in unnoted}}


def _guessed_shape(name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The official shape of a weight whose converter left no note of it."""
    shape = shapes[name]
    if name.endswith("patch_embedding.weight") and len(shape) in (2, 4):
        width = shapes.get(f"{name.removesuffix('weight')}bias", shape)[0]
        channels, rest = divmod(math.prod(shape), width * math.prod(_PATCH)) if width else (0, 1)
        return shape if rest else (width, channels, *_PATCH)
    if name.rsplit(".", 1)[-1] in _WITH_LEADING_ONE and len(shape) == 2:
        return (1, *shape)
    return shape
