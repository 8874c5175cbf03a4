"""How our models appear to ComfyUI's memory manager.

ComfyUI keeps a list of loaded models and evicts from it when somebody needs room. What it asks of
an entry is a small interface: sizes, load, unload. :class:`ManagedModel` is that interface over a
:class:`Residency`; nothing of ComfyUI's patching, hooks or weight casting is taken over.
"""

from __future__ import annotations

import logging
import uuid
from typing import Protocol

import comfy.model_management as management
import torch
from torch import nn

log = logging.getLogger(__name__)


class Residency(Protocol):
    """Moves one module's weights to a device and drops them there again."""

    @property
    def module(self) -> nn.Module:
        """The module whose weights move."""
        ...

    @property
    def total_bytes(self) -> int:
        """Bytes on the device when everything is loaded."""
        ...

    @property
    def resident_bytes(self) -> int:
        """Bytes on the device now."""
        ...

    def load(self, device: torch.device) -> int:
        """Bring the weights to ``device``; returns the bytes copied, 0 when they are there."""
        ...

    def unload(self) -> int:
        """Drop the device copies; the weights are the host masters again. Returns the bytes freed."""
        ...


class BlockResidency(Residency, Protocol):
    """A residency that keeps some blocks on the device and streams the others."""

    @property
    def planned_bytes(self) -> int:
        """Bytes on the device when it is loaded as planned: resident blocks and the ring."""
        ...

    @property
    def pinned_bytes(self) -> int:
        """Bytes of pinned host memory it holds."""
        ...

    def free(self, wanted: int) -> int:
        """Give back at least so many bytes of the device, in blocks; returns the bytes freed."""
        ...

    def release_pinned(self, wanted: int) -> int:
        """Give back at least so many bytes of pinned host memory; returns the bytes given back."""
        ...


class ManagedModel:
    """An entry for ComfyUI's list of loaded models.

    Args:
        residency: moves the weights.
        load_device: where the model runs.
        offload_device: where its weights wait.
    """

    parent = None
    is_multigpu_base_clone = False

    def __init__(
        self, residency: Residency, *, load_device: torch.device, offload_device: torch.device
    ) -> None:
        self.residency = residency
        self.load_device = load_device
        self.offload_device = offload_device
        self.clone_base_uuid = uuid.uuid4()

    @property
    def model(self) -> nn.Module:
        """The module; ComfyUI holds it weakly to notice when it is gone."""
        return self.residency.module

    def model_size(self) -> int:
        """Bytes that the device must have room for."""
        return self.residency.total_bytes

    def loaded_size(self) -> int:
        """Bytes on the device now."""
        return self.residency.resident_bytes

    def current_loaded_device(self) -> torch.device:
        """Where the weights are."""
        return self.load_device if self.residency.resident_bytes else self.offload_device

    def model_dtype(self) -> torch.dtype | None:
        """Type of the first weight."""
        first = next(self.model.parameters(), None)
        return None if first is None else first.dtype

    def partially_load(
        self, device: torch.device, extra_memory: float = 0, force_patch_weights: bool = False
    ) -> int:
        """Load the weights; returns the bytes that were added.

        ``extra_memory`` is what ComfyUI would like us to stay below: what need not be resident was left
        out by the plan, so the rest is loaded as a whole.
        """
        del force_patch_weights
        before = self.residency.resident_bytes
        missing = self.model_size() - before
        if missing > extra_memory > 0:
            log.debug(
                "%s needs %d MB more than offered",
                type(self.model).__name__,
                (missing - extra_memory) / 2**20,
            )
        self.residency.load(device)
        return self.residency.resident_bytes - before

    def partially_unload(self, device_to: torch.device, memory_to_free: float = 0) -> int:
        """Free nothing in part: ComfyUI then calls :meth:`detach`, which frees everything."""
        del device_to, memory_to_free
        return 0

    def detach(self, unpatch_all: bool = True) -> nn.Module:
        """Drop the device copies, unless only the entry in ComfyUI's list is being replaced."""
        if unpatch_all:
            self.residency.unload()
        return self.model

    def is_clone(self, other: object) -> bool:
        """Whether ``other`` holds the same module."""
        return getattr(other, "model", None) is self.model

    def is_dynamic(self) -> bool:
        """Whether ComfyUI pages the weights itself (DynamicVRAM): it does not."""
        return False

    def lowvram_patch_counter(self) -> int:
        """Number of weights patched while they are cast: none."""
        return 0

    def model_patches_to(self, device: object) -> None:
        """Move attached patches: there are none."""

    def model_patches_models(self) -> list[object]:
        """Models that must be loaded with this one: none."""
        return []

    def get_nested_additional_models(self) -> list[object]:
        """Further models attached to this one: none."""
        return []

    def pinned_memory_size(self) -> int:
        """Bytes of pinned host memory counted against ComfyUI's budget."""
        return 0

    def loaded_ram_size(self) -> int:
        """Bytes of host memory that ComfyUI could ask back."""
        return 0

    def partially_unload_ram(self, ram_to_unload: float, subsets: object = None) -> int:
        """Give back host memory: the masters are mapped files, which the system drops by itself."""
        del ram_to_unload, subsets
        return 0


class ManagedBlocks(ManagedModel):
    """An entry whose model is planned block by block: what ComfyUI must make room for is the plan."""

    residency: BlockResidency

    def model_size(self) -> int:
        """Bytes of the resident blocks, the ring and what lies outside the blocks."""
        return max(self.residency.planned_bytes, self.residency.resident_bytes)

    def partially_unload(self, device_to: torch.device, memory_to_free: float = 0) -> int:
        """Free whole blocks; they are streamed until the next run plans anew."""
        del device_to
        return self.residency.free(_bytes(memory_to_free))

    def pinned_memory_size(self) -> int:
        """Bytes of pinned host memory counted against ComfyUI's budget."""
        return self.residency.pinned_bytes

    def loaded_ram_size(self) -> int:
        """Bytes of host memory that ComfyUI could ask back."""
        return self.residency.pinned_bytes

    def partially_unload_ram(self, ram_to_unload: float, subsets: object = None) -> int:
        """Give back pinned host memory."""
        del subsets
        return self.residency.release_pinned(_bytes(ram_to_unload))


def _bytes(amount: float) -> int:
    """ComfyUI asks for 1e32 bytes when it wants all; device sizes are 64-bit numbers."""
    return int(min(amount, 2**62))


def load(*models: object, memory_required: float = 0) -> None:
    """Make room and bring models to their devices; call it before each use of a model.

    Args:
        models: :class:`ManagedModel` or ComfyUI patchers; a model that is loaded already costs nothing.
        memory_required: bytes the computation needs beside the weights.
    """
    management.load_models_gpu(list(models), memory_required=int(memory_required))


def evict(model: object) -> None:
    """Take one model off its device now: a :class:`ManagedModel` or a ComfyUI patcher."""
    management.unload_model_and_clones(model, all_devices=True)  # pyright: ignore[reportArgumentType]


def make_room(memory_required: float, device: torch.device) -> None:
    """Evict models until ``memory_required`` bytes are free on ``device``.

    For computations that stream their weights and so are not in ComfyUI's list themselves.
    """
    if device.type != "cpu":
        management.free_memory(memory_required + management.extra_reserved_memory(), device)


def free_for(model: ManagedModel, wanted: float) -> int:
    """Bytes of the device that ``model`` and its run may share, after others were evicted.

    Args:
        model: what it has on the device already counts as free.
        wanted: bytes to reach by evicting; what ComfyUI keeps in reserve comes on top.
    """
    device, own = model.load_device, model.loaded_size()
    if device.type != "cpu":
        keep = [entry for entry in management.current_loaded_models if entry.model is model]
        management.free_memory(wanted - own + reserved_bytes(), device, keep_loaded=keep)
    free = management.get_free_memory(device)
    return max(0, int(free) + own)  # pyright: ignore[reportArgumentType]


def reserved_bytes() -> int:
    """Bytes of a device that ComfyUI leaves to other programs (--reserve-vram)."""
    return int(management.extra_reserved_memory())


def preferred_residency() -> str:
    """What ComfyUI's start option asks for: "resident" (--highvram, --gpu-only), "stream" (--lowvram,
    --novram) or "auto"."""
    states = management.VRAMState
    if management.vram_state == states.HIGH_VRAM:
        return "resident"
    return "stream" if management.vram_state in (states.LOW_VRAM, states.NO_VRAM) else "auto"
