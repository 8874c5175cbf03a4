"""Pinned host memory, within ComfyUI's budget for it.

ComfyUI takes pinned memory back only from models it pages itself (DynamicVRAM). Ours give theirs back when
they leave their device, and here: to another of ours that runs.
"""

from __future__ import annotations

import weakref
from typing import Protocol

import comfy.model_management as management
from torch import Tensor, nn

from ...wanvideo.weights.slab import Pinning


class PinnedModel(Protocol):
    """A model that can give pinned memory back."""

    @property
    def model(self) -> nn.Module:
        """Its module."""
        ...

    def partially_unload_ram(self, ram_to_unload: float, subsets: object = None) -> int:
        """Give back at least so many bytes; returns the bytes."""
        ...


_models: weakref.WeakSet[PinnedModel] = weakref.WeakSet()  # a registry: who may be asked


def register_pinned(model: PinnedModel) -> None:
    """From now on, until it is dropped, `model` is asked when pinned memory is short."""
    _models.add(model)


def pinning_for(module: nn.Module) -> Pinning:
    """How the weights of `module` are pinned."""

    def pin(slab: Tensor) -> bool:
        return _make_budget(slab.nbytes, module) and bool(management.pin_memory(slab))

    return Pinning(pin, management.unpin_memory)


def _make_budget(nbytes: int, module: nn.Module) -> bool:
    """Whether so many bytes may be pinned for `module`, after others gave back theirs."""
    if management.MAX_PINNED_MEMORY <= 0:
        return False
    if _has_budget(nbytes):
        return True
    wanted = nbytes
    for model in list(_models):
        if model.model is not module and wanted > 0:
            wanted -= model.partially_unload_ram(wanted)
    return _has_budget(nbytes)


def _has_budget(nbytes: int) -> bool:
    """Room below ComfyUI's limit and in the machine's memory; ComfyUI's idle models are asked first."""
    management.ensure_pin_registerable(nbytes, evict_active=False)
    if management.TOTAL_PINNED_MEMORY + nbytes > management.MAX_PINNED_MEMORY:
        return False
    return bool(management.ensure_pin_budget(nbytes))
