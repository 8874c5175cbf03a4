"""Files that must be refused with a clear sentence."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save, save_file
from torch import Tensor

from . import fill, specs

PICKLE_MARKER = "pickle_ran"  # appears next to an evil pickle when somebody has run it

_ONE_BLOCK = specs.DiTSize(layers=1)
_QUERY = "blocks.0.self_attn.q.weight"


def _good(seed: int) -> dict[str, Tensor]:
    return fill.tensors(specs.dit(_ONE_BLOCK), file="bad", seed=seed, dtype=torch.bfloat16)


def web_page(path: Path, _seed: int) -> None:
    """What a failed download leaves."""
    path.write_text("<!DOCTYPE html>\n<html><body>404: not found</body></html>\n", encoding="ascii")


def empty(path: Path, _seed: int) -> None:
    """A file of no bytes."""
    path.write_bytes(b"")


def truncated(path: Path, seed: int) -> None:
    """A download that stopped half-way."""
    content = save(_good(seed))
    path.write_bytes(content[: len(content) // 2])


def extra_key(path: Path, seed: int) -> None:
    """A transformer with one weight nobody knows."""
    save_file({**_good(seed), "blocks.0.unheard_of.weight": torch.zeros(4)}, path)


def missing_key(path: Path, seed: int) -> None:
    """A transformer without one of its weights."""
    tensors = _good(seed)
    del tensors[_QUERY]
    save_file(tensors, path)


def wrong_shape(path: Path, seed: int) -> None:
    """A transformer with one matrix of half its width."""
    tensors = _good(seed)
    save_file({**tensors, _QUERY: tensors[_QUERY][:, ::2].contiguous()}, path)


def nan_weights(path: Path, seed: int) -> None:
    """A transformer with one matrix of NaN."""
    tensors = _good(seed)
    save_file({**tensors, _QUERY: torch.full_like(tensors[_QUERY], float("nan"))}, path)


def transformer(path: Path, seed: int) -> None:
    """A good transformer, for folders where it does not belong."""
    save_file(_good(seed), path)


def plain_t5(path: Path, seed: int) -> None:
    """A T5 encoder: one table of relative positions for all layers, which UMT5 has in each."""
    size = specs.UMT5Size(width=64, attention_width=64, heads=1, feed_forward=64)
    weights = fill.tensors(specs.umt5(size), file="plain_t5", seed=seed)
    table = "blocks.{}.pos_embedding.embedding.weight"
    for number in range(1, size.layers):
        del weights[table.format(number)]
    save_file({specs.umt5_hf_name(key): tensor for key, tensor in weights.items()}, path)


def evil_pickle(path: Path, _seed: int) -> None:
    """A PyTorch file that creates an empty file next to itself when its code is run."""
    torch.save({"state_dict": _Marker(path.with_name(PICKLE_MARKER)), "conv1.bias": torch.zeros(1)}, path)


class _Marker:
    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self._path, "w")
