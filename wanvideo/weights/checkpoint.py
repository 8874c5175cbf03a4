"""Model files as one lazy mapping from key to tensor.

Opening reads headers only. Tensors are CPU views on the mapped file: read-only by convention and, for
safetensors, by the operating system (writing into one crashes the process), so whoever changes a weight
clones it first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ModelFileError
from .layer_formats import (
    LAYER_FORMAT,
    TWO_IN_A_BYTE,
    LayerFormat,
    layers_in,
    merged_metadata,
    parse_layer_format,
    placed,
)
from .pickle_file import ZIP_MAGIC, read_tensors
from .safetensors_file import LARGEST_HEADER, LENGTH_BYTES, MappedFile, read_header

PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin"})
INDEX_SUFFIX = ".index.json"
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)$")
_PROBE_BYTES = 512


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: what the header says of it, how to get it and how to give its pages back.

    Args:
        shape: of the weight, whatever the storage.
        dtype: of what `read` returns; uint8 when it is packed.
        read: the stored tensor.
        release: gives its pages back.
        encoding: how the numbers are packed (a ggml type as "Q4_K"); empty for a plain tensor.
        stored_shape: of what `read` returns, when it is not `shape`: ``[rows, bytes of a row]``.
        is_made: whether `read` makes a new tensor each time, not a view on the file.
        path: of the file it comes from, when that is not the checkpoint's.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    release: Callable[[], None] = lambda: None
    encoding: str = ""
    stored_shape: tuple[int, ...] | None = None
    is_made: bool = False
    path: Path | None = None


class Checkpoint:
    """A model file: keys, shapes and dtypes at once, tensors on demand."""

    def __init__(
        self,
        path: Path,
        stored: Mapping[str, StoredTensor],
        metadata: Mapping[str, str],
        files: tuple[Path, ...],
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.files = files
        self._stored = dict(stored)

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Open a .safetensors, .gguf, .pt, .pth, .ckpt or .bin file; the content decides, not the name.

        A shard (`name-00001-of-00003.safetensors`) or its index (`name.safetensors.index.json`) opens all
        shards as one checkpoint.

        Raises:
            ModelFileError: missing, empty, cut off, a web page, a refused pickle, or another kind of file.
        """
        path = Path(path)
        try:
            return _with_layer_formats(_open_all(path))
        except OSError as error:
            raise ModelFileError(path, f"cannot be read: {error.strerror or error}") from error

    def keys(self) -> KeysView[str]:
        """All tensor names."""
        return self._stored.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __contains__(self, key: object) -> bool:
        return key in self._stored

    def __len__(self) -> int:
        return len(self._stored)

    def shape(self, key: str) -> tuple[int, ...]:
        """The logical shape of a tensor: that of the numbers it stands for, packed or not.

        Raises:
            ModelFileError: there is no such key.
        """
        return self._get(key).shape

    def path_of(self, key: str) -> Path:
        """The file a tensor comes from, for messages."""
        return self._get(key).path or self.path

    def is_made(self, key: str) -> bool:
        """Whether `tensor(key)` is a new tensor each time, not a view on the file."""
        return self._get(key).is_made

    def dtype(self, key: str) -> torch.dtype:
        """The storage dtype of a tensor, from the header. Raises ModelFileError when there is no such key."""
        return self._get(key).dtype

    def stored_shape(self, key: str) -> tuple[int, ...]:
        """The shape of `tensor(key)`: that of the weight, or ``[rows, bytes of a row]`` when it is packed."""
        stored = self._get(key)
        return stored.shape if stored.stored_shape is None else stored.stored_shape

    def encoding(self, key: str) -> str:
        """How the numbers of a tensor are packed: a ggml type such as "Q4_K"; empty for a plain tensor."""
        return self._get(key).encoding

    def tensor(self, key: str) -> Tensor:
        """The stored tensor on the CPU: a view on the mapped file. Never write into it; clone it first."""
        return self._get(key).read()

    def dense(self, key: str, dtype: torch.dtype) -> Tensor:
        """The weight in its own shape and in `dtype`, unpacked where it is packed."""
        from .formats.gguf import gguf_format

        stored = self._get(key)
        if not stored.encoding:
            return stored.read().to(dtype)
        return gguf_format(stored.encoding).decode(stored.read(), dtype).view(stored.shape)

    def release(self, key: str) -> None:
        """Give back the memory a tensor's pages take once it was copied. It can be read again at any time."""
        self._get(key).release()

    def byte_count(self) -> int:
        """Bytes of all tensors."""
        return sum(_byte_count(stored) for stored in self._stored.values())

    def replaced(self, tensors: Mapping[str, StoredTensor]) -> Checkpoint:
        """The same file with some tensors put in the place of, or beside, those it has."""
        return Checkpoint(self.path, {**self._stored, **tensors}, self.metadata, self.files)

    def beside(self, other: Checkpoint) -> Checkpoint:
        """This file and the tensors of another under one name; the other must not hold the same keys."""
        theirs = {
            key: replace(stored, path=stored.path or other.path) for key, stored in other._stored.items()
        }
        stored = {**theirs, **self._stored}
        return Checkpoint(self.path, stored, self.metadata, (*self.files, *other.files))

    def renamed(self, mapping: Callable[[str], str | None]) -> Checkpoint:
        """The same tensors under other names; `mapping` returns None for a key to leave out.

        Raises:
            ModelFileError: two keys get the same name.
        """
        stored: dict[str, StoredTensor] = {}
        origin: dict[str, str] = {}
        for key, value in self._stored.items():
            name = mapping(key)
            if name is None:
                continue
            if name in stored:
                raise ModelFileError(self.path, f"{origin[name]} and {key} both hold {name}")
            stored[name], origin[name] = value, key
        return Checkpoint(self.path, stored, self.metadata, self.files)

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """(path, size, modification time in ns) of each file: equal as long as nobody wrote to them."""
        try:
            return tuple(_stamp(file) for file in self.files)
        except OSError as error:
            raise ModelFileError(self.path, f"cannot be read: {error.strerror or error}") from error

    def _get(self, key: str) -> StoredTensor:
        try:
            return self._stored[key]
        except KeyError as error:
            raise ModelFileError(self.path, f"has no tensor named {key}") from error


def _byte_count(stored: StoredTensor) -> int:
    shape = stored.shape if stored.stored_shape is None else stored.stored_shape
    return torch.Size(shape).numel() * stored.dtype.itemsize


def _stamp(file: Path) -> tuple[str, int, int]:
    stat = file.stat()
    return str(file.resolve()), stat.st_size, stat.st_mtime_ns


def _open_all(path: Path) -> Checkpoint:
    if path.name.endswith(INDEX_SUFFIX):
        return _merged(path, _indexed_files(path))
    shard = _SHARD.match(path.name)
    if shard and int(shard["count"]) > 1:
        return _merged(path, _sibling_shards(path, shard))
    return _open_file(path)


def _with_layer_formats(checkpoint: Checkpoint) -> Checkpoint:
    """Descriptions of quantised layers as tensors, and logical shapes for two numbers in a byte."""
    texts = placed(layers_in(checkpoint.path, checkpoint.metadata), checkpoint.keys())
    described = {key: _text_tensor(text) for key, text in texts.items() if key not in checkpoint}
    checkpoint = checkpoint.replaced(described)
    packed: dict[str, StoredTensor] = {}
    for layer in quantised_layers(checkpoint):
        weight = checkpoint._stored.get(f"{layer}.weight")
        if weight and weight.shape and layer_format(checkpoint, layer).name in TWO_IN_A_BYTE:
            shape = (*weight.shape[:-1], 2 * weight.shape[-1])
            packed[f"{layer}.weight"] = replace(weight, shape=shape, stored_shape=weight.shape)
    return checkpoint.replaced(packed)


def quantised_layers(checkpoint: Checkpoint) -> list[str]:
    """Names of the layers that have ComfyUI's description of a quantised layer."""
    ending = f".{LAYER_FORMAT}"
    return [key.removesuffix(ending) for key in checkpoint if key.endswith(ending)]


def layer_format(checkpoint: Checkpoint, layer: str) -> LayerFormat:
    """How ComfyUI's description says `layer` is stored. Raises ModelFileError when it is not readable."""
    text = checkpoint.tensor(f"{layer}.{LAYER_FORMAT}").contiguous().flatten().view(torch.uint8)
    return parse_layer_format(checkpoint.path, layer, bytes(text.tolist()))


def _text_tensor(text: bytes) -> StoredTensor:
    return StoredTensor(
        (len(text),), torch.uint8, lambda: torch.tensor(list(text), dtype=torch.uint8), is_made=True
    )


def _open_file(path: Path) -> Checkpoint:
    probe = _probe(path)
    if probe.startswith(b"GGUF"):
        from .gguf_file import open_gguf  # makes checkpoints, so this cannot stand above

        return open_gguf(path)
    if _looks_like_safetensors(path, probe):
        return _open_safetensors(path)
    if probe.startswith((ZIP_MAGIC, b"\x80")) or path.suffix.lower() in PICKLE_SUFFIXES:
        return _open_pickle(path)
    raise ModelFileError(path, "is not a model file this pack can read; use a .safetensors or .gguf file")


def _probe(path: Path) -> bytes:
    """The first bytes of the file. Raises ModelFileError for what is certainly not a model file."""
    if path.is_dir():
        raise ModelFileError(path, "is a folder, not a model file; pick a .safetensors file inside it")
    if not path.exists():
        raise ModelFileError(path, f"there is no such file in {path.parent}; expected a .safetensors file")
    with path.open("rb") as file:
        probe = file.read(_PROBE_BYTES)
    if not probe:
        raise ModelFileError(path, "is empty (0 bytes), not a safetensors file; download it again")
    text = probe.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")):
        raise ModelFileError(path, "is a web page (HTML), not a model (safetensors): download it again")
    if probe.startswith(b"version https://git-lfs"):
        raise ModelFileError(
            path,
            "is a git-lfs pointer, not the safetensors file itself; run 'git lfs pull' or download it again",
        )
    return probe


def _looks_like_safetensors(path: Path, probe: bytes) -> bool:
    length = int.from_bytes(probe[:LENGTH_BYTES], "little")
    if probe[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and length <= LARGEST_HEADER:
        return True
    is_named_so = path.suffix.lower() in {".safetensors", ".sft"}
    return is_named_so and not probe.startswith((ZIP_MAGIC, b"\x80\x02\x8a"))


def _open_safetensors(path: Path) -> Checkpoint:
    header = read_header(path)
    file = MappedFile(path, header.data_start)
    stored = {
        key: StoredTensor(place.shape, place.dtype, partial(file.view, place), partial(file.release, place))
        for key, place in header.places.items()
    }
    if not stored:
        raise ModelFileError(path, "is a safetensors file without any tensors")
    return Checkpoint(path, stored, header.metadata, (path,))


def _open_pickle(path: Path) -> Checkpoint:
    stored = {
        key: StoredTensor(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)
        for key, tensor in read_tensors(path).items()
    }
    return Checkpoint(path, stored, {}, (path,))


def _sibling_shards(path: Path, shard: re.Match[str]) -> list[Path]:
    count = int(shard["count"])
    names = [
        f"{shard['stem']}-{number:05d}-of-{count:05d}{shard['suffix']}" for number in range(1, count + 1)
    ]
    return [path.with_name(name) for name in names]


def _indexed_files(path: Path) -> list[Path]:
    _probe(path)
    try:
        weight_map = json.loads(path.read_text("utf-8"))["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelFileError(path, "is not a safetensors index; download it again") from error
    if any(Path(name).name != name for name in names):
        raise ModelFileError(path, "the safetensors index points outside its own folder")
    return [path.with_name(name) for name in names]


def _merged(path: Path, files: Iterable[Path]) -> Checkpoint:
    files = tuple(files)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelFileError(
            path,
            f"is part of a model of {len(files)} safetensors files; missing in the same folder: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}",
        )
    stored: dict[str, StoredTensor] = {}
    parts = [_open_file(file) for file in files]
    for part in parts:
        stored.update(part._stored)
    return Checkpoint(path, stored, merged_metadata((part.path, part.metadata) for part in parts), files)
