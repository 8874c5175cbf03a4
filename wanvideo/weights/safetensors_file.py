"""The safetensors container: header checks before anything else, then views on the mapped file.

The reader is our own because the pack needs three things at once: sentences instead of parser errors,
tensors that are views (opening a 28 GB file costs a few MB), and a read-only shared mapping. A private
writable mapping is charged against the commit limit: on Windows that is error 1455 ("paging file too
small"), on Linux ENOMEM, for any file larger than the free memory.

Format: 8 bytes little-endian header length, a JSON header, the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
import mmap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ModelFileError

LENGTH_BYTES = 8
LARGEST_HEADER = 100_000_000
DOWNLOAD_AGAIN = "download it again"

_DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, attribute) for name, attribute in _DTYPE_NAMES.items() if hasattr(torch, attribute)
}


@dataclass(frozen=True)
class TensorPlace:
    """Where one tensor lies: its type, shape and byte range after the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """A checked header."""

    places: Mapping[str, TensorPlace]
    metadata: Mapping[str, str]
    data_start: int


class MappedFile:
    """A file mapped on first use; tensors made from it keep the mapping alive."""

    def __init__(self, path: Path, data_start: int) -> None:
        self.path = path
        self.data_start = data_start

    @cached_property
    def _mapping(self) -> mmap.mmap:
        try:
            with self.path.open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelFileError(self.path, f"cannot be mapped: {error}") from error

    @cached_property
    def _bytes(self) -> Tensor:
        with warnings.catch_warnings():
            # torch warns that the buffer is read-only; that is what we want.
            warnings.simplefilter("ignore", UserWarning)
            return torch.frombuffer(self._mapping, dtype=torch.uint8)

    # ComfyUI runs nodes in inference mode; tensors born there are refused by torch.compile and cannot be
    # re-pointed outside of it.
    @torch.inference_mode(False)
    def view(self, place: TensorPlace) -> Tensor:
        """The tensor at `place`: a view, or a copy where its bytes are not aligned for its type."""
        start, stop = self.data_start + place.start, self.data_start + place.stop
        if stop > len(self._bytes):
            raise ModelFileError(self.path, "the file became shorter while it was open")
        if start == stop:
            return torch.empty(place.shape, dtype=place.dtype)
        flat = self._bytes[start:stop]
        if start % place.dtype.itemsize:
            flat = flat.clone()
        return flat.view(place.dtype).view(place.shape)

    def release(self, place: TensorPlace) -> None:
        """Take the tensor's pages out of this process; they come back from the page cache when read."""
        if not hasattr(mmap, "MADV_DONTNEED"):  # Windows trims mapped pages by itself
            return
        start = (self.data_start + place.start) // mmap.PAGESIZE * mmap.PAGESIZE
        stop = self.data_start + place.stop
        if start < stop:
            self._mapping.madvise(mmap.MADV_DONTNEED, start, stop - start)


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of a safetensors file.

    Raises:
        ModelFileError: too short, no header, a header that does not fit the file's length.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(LENGTH_BYTES)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < LENGTH_BYTES:
            raise ModelFileError(
                path, f"has only {size} bytes, too few for a safetensors file; {DOWNLOAD_AGAIN}"
            )
        if not 2 <= length <= LARGEST_HEADER:
            raise ModelFileError(path, "is not a safetensors file (it has no valid header)")
        text = file.read(length)
    if not text.startswith(b"{"):
        raise ModelFileError(path, "is not a safetensors file (it has no valid header)")
    if len(text) < length:
        missing = length - len(text)
        raise ModelFileError(
            path,
            f"is cut off inside its safetensors header, at least {missing} bytes missing; {DOWNLOAD_AGAIN}",
        )
    entries, metadata = _parse(path, text)
    places = {name: _place(path, name, entry) for name, entry in entries.items()}
    needed = max((place.stop for place in places.values()), default=0)
    present = size - LENGTH_BYTES - length
    if needed > present:
        raise ModelFileError(
            path,
            f"is cut off: {needed - present} of {LENGTH_BYTES + length + needed} bytes of the safetensors "
            f"file are missing; {DOWNLOAD_AGAIN}",
        )
    return SafetensorsHeader(places, metadata, LENGTH_BYTES + length)


def _parse(path: Path, text: bytes) -> tuple[dict[str, object], dict[str, str]]:
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(path, f"has a damaged safetensors header; {DOWNLOAD_AGAIN}") from error
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        metadata = {}
    return header, {str(name): str(value) for name, value in metadata.items()}


def _place(path: Path, name: str, entry: object) -> TensorPlace:
    def damaged(why: str) -> ModelFileError:
        return ModelFileError(path, f"has a damaged safetensors header ({name}: {why}); {DOWNLOAD_AGAIN}")

    if not isinstance(entry, dict):
        raise damaged("not a tensor entry")
    kind, shape, offsets = entry.get("dtype"), _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise damaged("shape or offsets are not lists of sizes")
    dtype = DTYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        raise ModelFileError(path, f"{name} is stored as {kind}, a safetensors type this version cannot read")
    start, stop = offsets
    if stop - start != math.prod(shape) * dtype.itemsize:
        raise damaged(f"{stop - start} bytes for {kind} of shape {list(shape)}")
    return TensorPlace(dtype, shape, start, stop)


def _sizes(value: object) -> tuple[int, ...] | None:
    if isinstance(value, list) and all(type(item) is int and item >= 0 for item in value):
        return tuple(value)
    return None
