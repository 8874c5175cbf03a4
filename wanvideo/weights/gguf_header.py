"""The header of a GGUF file: metadata and where each tensor lies.

The header is read here and not by the package `gguf`, because a damaged file must end in a sentence that
names the tensor, and because the package keeps each of the 256384 words of a vocabulary as two
arrays. Names and block sizes of the number types do come from the package.

Format: magic "GGUF", version, number of tensors, number of metadata entries, the entries, the tensors'
names, sizes, types and offsets, padding, data. Everything is little-endian
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelFileError
from .safetensors_file import DOWNLOAD_AGAIN

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# struct codes of the scalar value types, by their number
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_DEFAULT_ALIGNMENT = 32
_MOST_DIMENSIONS = 8

ArrayValue = tuple[bytes, ...] | tuple[float, ...]


@dataclass(frozen=True)
class GgufEntry:
    """One tensor as the header describes it.

    Args:
        shape: slowest dimension first, as torch has it (the file has the fastest first).
        type_number: of the ggml type.
        offset: bytes after `GgufHeader.data_start`.
    """

    shape: tuple[int, ...]
    type_number: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says about itself.

    Args:
        entries: tensors by name.
        metadata: single values, as text.
        arrays: where the arrays of the metadata start, by name.
        data_start: first byte of the data.
    """

    entries: Mapping[str, GgufEntry]
    metadata: Mapping[str, str]
    arrays: Mapping[str, int]
    data_start: int


class _Cursor:
    """Reads values one after the other. struct.error says that the file ended."""

    def __init__(self, content: mmap.mmap, offset: int) -> None:
        self.content = content
        self.offset = offset

    def number(self, code: str) -> int | float:
        (value,) = struct.unpack_from(f"<{code}", self.content, self.offset)
        self.offset += struct.calcsize(f"<{code}")
        return value

    def size(self, code: str = "Q") -> int:
        return int(self.number(code))

    def string(self) -> bytes:
        length = self.size()
        start, self.offset = self.offset, self.offset + length
        if self.offset > len(self.content):
            raise struct.error("a text goes beyond the end of the file")
        return self.content[start : self.offset]

    def text(self) -> str:
        return self.string().decode("utf-8", "replace")

    def scalar(self, kind: int) -> bytes | int | float:
        return self.string() if kind == _STRING else self.number(_SCALARS[kind])

    def array(self) -> ArrayValue:
        kind, count = self.size("I"), self.size()
        if kind == _STRING:
            return tuple(self.string() for _ in range(count))
        values = struct.unpack_from(f"<{count}{_SCALARS[kind]}", self.content, self.offset)
        self.offset += struct.calcsize(f"<{count}{_SCALARS[kind]}")
        return values

    def skip_array(self) -> None:
        kind, count = self.size("I"), self.size()
        if kind == _STRING:
            for _ in range(count):
                (length,) = struct.unpack_from("<Q", self.content, self.offset)
                self.offset += 8 + length
        else:
            self.offset += count * struct.calcsize(_SCALARS[kind])


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file; no data.

    Raises:
        ModelFileError: another version, cut off, or damaged.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _header(path, _Cursor(content, len(MAGIC)))
        except struct.error as error:
            raise ModelFileError(path, f"is cut off inside its GGUF header; {DOWNLOAD_AGAIN}") from error
        except (KeyError, ValueError, OverflowError, MemoryError) as error:
            raise ModelFileError(path, f"has a damaged GGUF header ({error}); {DOWNLOAD_AGAIN}") from error


def read_gguf_arrays(path: Path, names: Iterable[str]) -> dict[str, ArrayValue]:
    """Some arrays of the metadata, texts as bytes; what the file does not have is left out.

    Raises:
        ModelFileError: as `read_gguf_header`.
    """
    starts = read_gguf_header(path).arrays
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return {name: _Cursor(content, starts[name]).array() for name in names if name in starts}


def _header(path: Path, cursor: _Cursor) -> GgufHeader:
    version = cursor.size("I")
    if version not in VERSIONS:
        is_swapped = version & 0xFFFF == 0
        raise ModelFileError(
            path,
            f"is a GGUF file {'for big-endian machines' if is_swapped else f'of version {version}'}; "
            "supported are the little-endian versions 2 and 3: get another file of the model",
        )
    tensor_count, value_count = cursor.size(), cursor.size()
    metadata: dict[str, str] = {}
    arrays: dict[str, int] = {}
    for _ in range(value_count):
        name, kind = cursor.text(), cursor.size("I")
        if kind == _ARRAY:
            arrays[name] = cursor.offset
            cursor.skip_array()
        else:
            value = cursor.scalar(kind)
            metadata[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    entries: dict[str, GgufEntry] = {}
    for _ in range(tensor_count):
        name = cursor.text()
        if name in entries:
            raise ValueError(f"{name} is there twice")
        entries[name] = _entry(cursor)
    alignment = int(metadata.get("general.alignment", _DEFAULT_ALIGNMENT))
    if alignment < 1:
        raise ValueError(f"alignment {alignment}")
    return GgufHeader(entries, metadata, arrays, -(-cursor.offset // alignment) * alignment)


def _entry(cursor: _Cursor) -> GgufEntry:
    rank = cursor.size("I")
    if rank > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor of {rank} dimensions")
    sizes = [cursor.size() for _ in range(rank)]
    return GgufEntry(tuple(reversed(sizes)), cursor.size("I"), cursor.size())
