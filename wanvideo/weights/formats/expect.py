"""Prepare a module on the meta device for the formats its file uses, and decode what cannot stay packed."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

from ..checkpoint import Checkpoint
from ..layer_formats import LAYER_FORMAT
from ..linear import WanLinear
from .base import DENSE
from .storage import BESIDE_A_WEIGHT, FULL_PRECISION_MARKER, storage_of


def wan_linears(module: nn.Module) -> Iterator[tuple[str, WanLinear]]:
    """Every `WanLinear` of `module` with its path."""
    for path, layer in module.named_modules():
        if isinstance(layer, WanLinear):
            yield path, layer


def expect_formats(module: nn.Module, checkpoint: Checkpoint) -> frozenset[str]:
    """Give every `WanLinear` the format and the tensors (on meta) its weight has in the file.

    Decided for each weight from the file. Layers that are not in the file stay as they are.

    Args:
        module: on the meta device, before `assemble.assign`.
        checkpoint: with the module's key names.

    Returns:
        Keys of the file that are used up here and are no parameters.

    Raises:
        ModelFileError: an unknown format, or scales whose shape does not fit the weight.
    """
    for path, layer in wan_linears(module):
        if _key(path, "weight") not in checkpoint:
            continue
        if not path or not needs_decoding(checkpoint, f"{path}.weight"):
            continue
        storage = storage_of(checkpoint, path, (layer.out_features, layer.in_features))
        if storage.format is not DENSE:
            layer.store_as(
                storage.format,
                {
                    name: torch.empty(spec.shape, dtype=spec.dtype, device="meta")
                    for name, spec in storage.tensors.items()
                },
            )
    targets = set(module.state_dict())
    return frozenset(key for key in checkpoint if key not in targets and _is_beside_a_weight(key, checkpoint))


def _is_beside_a_weight(key: str, checkpoint: Checkpoint) -> bool:
    path, _, name = key.rpartition(".")
    if name == FULL_PRECISION_MARKER:
        return True
    return name in BESIDE_A_WEIGHT and _key(path, "weight") in checkpoint


def is_stored_number(checkpoint: Checkpoint, key: str) -> bool:
    """Whether a tensor holds numbers this version can read as floating point."""
    path = key.removesuffix(".weight")
    return bool(
        checkpoint.dtype(key).is_floating_point
        or checkpoint.encoding(key)
        or (path != key and f"{path}.{LAYER_FORMAT}" in checkpoint)
    )


def needs_decoding(checkpoint: Checkpoint, key: str) -> bool:
    """Whether a tensor's values depend on more than the numbers it holds: it is packed or scaled."""
    path = key.removesuffix(".weight")
    has_scale = any(f"{path}.{name}" in checkpoint for name in ("weight_scale", LAYER_FORMAT))
    return bool(checkpoint.encoding(key)) or (path != key and has_scale)


def decode(checkpoint: Checkpoint, key: str, dtype: torch.dtype) -> Tensor:
    """A tensor as plain numbers, for modules that are no `WanLinear`; scales of the file are applied.

    Raises:
        ModelFileError: an unknown format, or scales whose shape does not fit.
    """
    if not needs_decoding(checkpoint, key) or checkpoint.encoding(key):
        return checkpoint.dense(key, dtype)
    path, shape = key.removesuffix(".weight"), checkpoint.shape(key)
    matrix_shape = (shape[0], prod(shape[1:])) if shape else (1, 1)
    storage = storage_of(checkpoint, path, matrix_shape)
    if storage.format is DENSE:
        return checkpoint.dense(key, dtype)
    stored = {
        name: checkpoint.tensor(f"{path}.{name}").to(spec.dtype) for name, spec in storage.tensors.items()
    }
    if "weight_scale" in stored and stored["weight"].ndim != 2:
        stored["weight"] = stored["weight"].reshape(matrix_shape)
    return storage.format.materialize(stored, dtype).reshape(shape)


def _key(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
