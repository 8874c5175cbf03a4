"""Where a module's weights are: masters on the host, copies on a device while it is used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence

import torch
from torch import Tensor, nn

from .parts import Part, farthest_first, parts_of, tensors_of
from .plan import Placement, device_bytes_of, spread_evenly
from .slab import CUDA_PINNING, PinnedSlabs, Pinning, TensorGroup
from .streamer import BlockStreamer
from .streams import Streams, streams_for

CPU = torch.device("cpu")
RING_SLOTS = 2  # one block computes while the next one arrives


def copy_to(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of a host tensor on a device."""
    return tensor.to(device, copy=True)


class Residency:
    """Brings one module's weights to a device and drops them there again.

    The tensors the module has when this object is made are the masters; usually they are views on mapped
    files. Loading points the parameters to copies, unloading points them back: frozen weights never
    travel from the device to the host, and what was changed on the device is gone. Parameter objects stay
    the same, so compiled graphs and other references stay valid.

    The unit is the whole module.

    Args:
        module: on the CPU, complete. Parameters it gets later are not managed.
        copy: makes the device copy of one tensor.
    """

    def __init__(
        self, module: nn.Module, *, copy: Callable[[Tensor, torch.device], Tensor] = copy_to
    ) -> None:
        self.module = module
        self._copy = copy
        self._device = CPU
        self._weights = TensorGroup(tensors_of(module))

    @property
    def device(self) -> torch.device:
        """Where the weights are now."""
        return self._device

    @property
    def total_bytes(self) -> int:
        """Bytes on a device when the module is loaded."""
        return self._weights.nbytes

    @property
    def resident_bytes(self) -> int:
        """Bytes on a device now; 0 while the weights are the masters."""
        return 0 if self._device == CPU else self.total_bytes

    def load(self, device: torch.device | str) -> int:
        """Bring every weight to `device`; nothing happens when it is there or when `device` is the CPU.

        Returns:
            The bytes copied.

        Raises:
            torch.OutOfMemoryError: no room; nothing is left on the device.
        """
        device = _indexed(torch.device(device))
        if device == self._device:
            return 0
        self.unload()
        if device == CPU:
            return 0
        self._weights.point_to([self._copy(master, device) for master in self._weights.masters])
        self._device = device
        return self.total_bytes

    def unload(self) -> int:
        """Point the weights to the masters again. Returns the bytes freed on the device."""
        freed = self.resident_bytes
        self._weights.point_to_masters()
        self._device = CPU
        return freed


class ModelResidency:
    """Brings a model of many equal blocks to a device: some blocks to stay, the others to pass through.

    As `Residency`, with parts: the weights outside the blocks, the embedders, and each block. Which blocks
    are streamed is the placement (`apply`); without one everything is resident. On the CPU nothing is
    copied. The result of a pass does not depend on the placement, bit for bit.

    Used from one thread. `free` may be called while a pass runs, also from within a block.

    Args:
        module: on the CPU, complete. Parameters it gets later are not managed.
        blocks: of the module, in the order in which they are walked.
        embedders: submodules that are used once per run; they can be dropped after that.
        pin: how host memory is pinned.
        make_streams: makes the queues of a device.
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[nn.Module],
        *,
        embedders: Sequence[nn.Module] = (),
        pin: Pinning = CUDA_PINNING,
        make_streams: Callable[[torch.device], Streams] = streams_for,
    ) -> None:
        self.module = module
        self._make_streams = make_streams
        self._device = CPU
        self._streams: Streams | None = None
        self._streamer: BlockStreamer | None = None
        self._slabs = PinnedSlabs(pin, name=type(module).__name__)
        self._rest, self._embedders, self._blocks = parts_of(module, blocks, embedders)
        self._wanted = Placement(len(blocks))

    @property
    def device(self) -> torch.device:
        """Where the model computes now."""
        return self._device

    @property
    def block_bytes(self) -> tuple[int, ...]:
        """Bytes of each block on a device."""
        return tuple(part.nbytes for part in self._blocks)

    @property
    def embedder_bytes(self) -> int:
        """Bytes of the embedders on a device."""
        return self._embedders.nbytes

    @property
    def rest_bytes(self) -> int:
        """Bytes outside the blocks on a device, without the embedders."""
        return self._rest.nbytes

    @property
    def total_bytes(self) -> int:
        """Bytes on a device when everything is resident."""
        return self.rest_bytes + self.embedder_bytes + sum(self.block_bytes)

    @property
    def planned_bytes(self) -> int:
        """Bytes on a device after `load`."""
        return self.rest_bytes + self.embedder_bytes + device_bytes_of(self.block_bytes, self._wanted)

    @property
    def resident_bytes(self) -> int:
        """Bytes on a device now: parts that are there, and the slots of the ring."""
        parts = sum(part.resident_bytes for part in self._parts())
        return parts + (self._streamer.device_bytes if self._streamer else 0)

    @property
    def pinned_bytes(self) -> int:
        """Bytes of host memory pinned now."""
        return self._slabs.nbytes

    @property
    def streamed(self) -> frozenset[int]:
        """Indices of the blocks that are streamed now."""
        return self._streamer.streamed if self._streamer else frozenset()

    def apply(self, placement: Placement) -> None:
        """Place the blocks like this from the next `load` on, which moves only the difference.

        Args:
            placement: usually a `MemoryPlan`.

        Raises:
            ValueError: it was made for another number of blocks.
        """
        if placement.blocks != len(self._blocks):
            raise ValueError(f"a placement of {placement.blocks} blocks for {len(self._blocks)}")
        self._wanted = placement

    def load(self, device: torch.device | str) -> int:
        """Bring the model to `device` as `apply` wants it; on the CPU that is an unload.

        What `free` and `drop_embedders` took away comes back. A pass that runs ends when blocks move.

        Returns:
            The bytes copied into parts that stay on the device.

        Raises:
            torch.OutOfMemoryError: no room; nothing is left on the device.
        """
        device = _indexed(torch.device(device))
        if device != self._device:
            self.unload()
        if device == CPU:
            return 0
        try:
            return self._move(device)
        except BaseException:
            self.unload()
            raise

    def unload(self) -> int:
        """Give back device memory and pinned memory; a pass that runs ends. Returns the device bytes."""
        freed = self.resident_bytes
        try:
            if self._streamer is not None:
                self._streamer.close()
        finally:
            for part in self._parts():
                part.drop()
            self._streams = self._streamer = None
            self._device = CPU
        return freed

    def free(self, wanted: int) -> int:
        """Stream more blocks, so that about `wanted` bytes become free on the device.

        Takes whole blocks, far from those streamed already, never the one in use. A ring is made first
        when there is none, if that still frees memory. `load` brings the blocks back.

        Returns:
            The bytes freed; less than wanted when there is no more to take.
        """
        if self._streamer is None or wanted <= 0:
            return 0
        before = self.resident_bytes
        streamed = self._streamer.streamed
        chosen = self._blocks_to_drop(wanted)
        if chosen:
            for index in chosen:
                self._blocks[index].drop()
            self._streamer.place(streamed | set(chosen), self._slots_for(len(streamed) + len(chosen)))
        return before - self.resident_bytes

    def drop_embedders(self) -> int:
        """Drop the embedders on the device until the next `load`. Returns the bytes freed."""
        return self._embedders.drop()

    def release_pinned(self, wanted: int) -> int:
        """Give back pinned host memory until the next `load`; streaming goes on, slower.

        Returns:
            The bytes given back.
        """
        return self._streamer.release_pinned(wanted) if self._streamer else 0

    def walk(
        self, blocks: Sequence[nn.Module], skip: Collection[int] = ()
    ) -> Generator[tuple[int, nn.Module], None, None]:
        """Yield `(index, block)` in order without the skipped ones, each with its weights on the device."""
        if self._streamer is not None:
            return self._streamer.walk(blocks, skip)
        return ((index, block) for index, block in enumerate(blocks) if index not in skip)

    def _parts(self) -> list[Part]:
        return [self._rest, self._embedders, *self._blocks]

    def _move(self, device: torch.device) -> int:
        if self._streams is None or self._streamer is None:
            self._streams = self._make_streams(device)
            groups = [part.group for part in self._blocks]
            self._streamer = BlockStreamer(groups, streams=self._streams, slabs=self._slabs)
        self._device = device
        wanted = self._wanted
        missing = [index for index in sorted(wanted.resident) if not self._blocks[index].resident_bytes]
        if missing or self._streamer.streamed != set(wanted.streamed):
            self._streamer.end_pass()
        for index in (*wanted.streamed, *wanted.idle):
            self._blocks[index].drop()
        self._streamer.place(wanted.streamed, wanted.slots)
        for index in (*missing, *wanted.idle):
            self._streamer.drop_slab(index)
        loading = [self._rest, self._embedders, *(self._blocks[index] for index in missing)]
        copied = sum(part.load(self._streams) for part in loading)
        self._slabs.allow()
        self._streamer.prefetch()
        return copied

    def _blocks_to_drop(self, wanted: int) -> list[int]:
        """The resident blocks to stream besides, so that `wanted` bytes are free, or as many as help."""
        assert self._streamer is not None
        streamed, slot_bytes = self._streamer.streamed, self._streamer.slot_bytes
        candidates = [
            index
            for index, part in enumerate(self._blocks)
            if part.resident_bytes and index != self._streamer.in_use
            if not slot_bytes or part.nbytes <= slot_bytes
        ]
        order = farthest_first(candidates, streamed, len(self._blocks))
        best: list[int] = []
        most = 0
        for count in range(1, len(candidates) + 1):
            chosen = (
                order[:count] if streamed else [candidates[i] for i in spread_evenly(count, len(candidates))]
            )
            slots = self._slots_for(len(streamed) + count)
            ring = slots * (slot_bytes or max(self._blocks[index].nbytes for index in chosen))
            freed = sum(self._blocks[index].nbytes for index in chosen) + self._streamer.device_bytes - ring
            if freed > most:
                best, most = chosen, freed
            if most >= wanted:
                break
        return best

    def _slots_for(self, streamed: int) -> int:
        """Slots of a ring after more blocks are streamed than was planned."""
        return min(streamed, max(self._wanted.slots, RING_SLOTS))


def _indexed(device: torch.device) -> torch.device:
    """`cuda` is `cuda:0` or whichever is current, so that both spellings compare equal."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
