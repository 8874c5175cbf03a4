"""Pinned host memory, within ComfyUI's budget for it.

ComfyUI takes pinned memory back only from models it pages itself (DynamicVRAM). Ours give theirs back when
they leave their device, and here: to another of ours that runs.
"""

from __future__ import annotations

import comfy.model_management as management
from torch import Tensor, nn

from ...wanvideo.weights.slab import Pinning
from .memory import ManagedBlocks


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
    for model in _others(module):
        if wanted > 0:
            wanted -= model.partially_unload_ram(wanted)
    return _has_budget(nbytes)


def _others(module: nn.Module) -> list[ManagedBlocks]:
    """Our loaded models but that of `module`; a model that is not loaded has nothing pinned."""
    loaded = [entry.model for entry in management.current_loaded_models]
    return [model for model in loaded if isinstance(model, ManagedBlocks) and model.model is not module]


def _has_budget(nbytes: int) -> bool:
    """Room below ComfyUI's limit and in the machine's memory; ComfyUI's idle models are asked first."""
    management.ensure_pin_registerable(nbytes, evict_active=False)
    if management.TOTAL_PINNED_MEMORY + nbytes > management.MAX_PINNED_MEMORY:
        return False
    return bool(management.ensure_pin_budget(nbytes))
