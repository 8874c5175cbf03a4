"""Blocks whose weights pass through a small ring of device slots while other blocks compute.

The masters stay on the host and are never written to, so nothing is copied back: a block that was used is
only pointed to its masters again. The order on the device comes from events; the host queues a whole pass
without waiting:

    copies:   wait free(slot), copy block, record ready(slot)
    compute:  wait ready(slot), run block, record free(slot)

After a block was used, the next streamed blocks of this pass are fetched into the slots that are free,
and after the last one the first of the next pass, which skips the same blocks more often than not. Each
slot knows what it holds: a wrong guess costs one copy, nothing else.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Generator, Sequence

import torch
from torch import Tensor, nn

from .slab import PinnedSlabs, SlabLayout, TensorGroup
from .streams import Event, Streams


class PassEnded(RuntimeError):
    """A pass asks for its next block after its weights were unloaded, moved, or taken by another pass."""


class BlockStreamer:
    """Streams some blocks of a list through a ring of slots; the others are left as they are.

    One pass runs at a time: a new one ends the one before. Copies in flight are waited for before memory
    is given back, also when this object is just dropped.

    Args:
        blocks: the weights of every block, streamed or not.
        streams: of the device.
        slabs: pinned host memory for the streamed blocks; closed with this object.
    """

    def __init__(self, blocks: Sequence[TensorGroup], *, streams: Streams, slabs: PinnedSlabs) -> None:
        self._blocks = blocks
        self._streams = streams
        self._slabs = slabs
        self._streamed: frozenset[int] = frozenset()
        self._slots: list[_Slot] = []
        self._deferred: frozenset[int] = frozenset()
        self._pass: _Pass | None = None
        self._finalizer = weakref.finalize(self, _give_back, streams, self._slots, slabs)
        self._finalizer.atexit = False  # the driver may be gone by then

    @property
    def streamed(self) -> frozenset[int]:
        """Indices of the blocks that are streamed."""
        return self._streamed

    @property
    def device_bytes(self) -> int:
        """Bytes of the slots."""
        return sum(slot.buffer.nbytes for slot in self._slots)

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot; 0 without a ring. Larger blocks cannot be added to it."""
        return self._slots[0].buffer.nbytes if self._slots else 0

    @property
    def in_use(self) -> int | None:
        """The block that the pass is at."""
        return self._pass.current if self._pass else None

    def place(self, streamed: Collection[int], slots: int) -> None:
        """Stream these blocks from now on.

        Slots of the right size stay with what they hold. A pass goes on unless a slot in use must go.

        Raises:
            torch.OutOfMemoryError: no room for the slots; then there is no ring, and nothing is streamed.
        """
        nbytes = max((self._blocks[index].layout.total_bytes for index in streamed), default=0)
        self._streamed = frozenset()
        if nbytes != self.slot_bytes or slots < len(self._slots):
            self._drop_slots()
        try:
            while len(self._slots) < slots:
                buffer = self._streams.allocate(nbytes)
                self._slots.append(_Slot(buffer, self._streams.after_compute()))
        except BaseException:
            self._drop_slots()
            raise
        self._streamed = frozenset(streamed)

    def drop_slab(self, index: int) -> None:
        """Give back the pinned memory of a block that is no longer streamed."""
        if index in self._slabs:
            self._streams.host_wait()
            self._slabs.drop(index)

    def release_pinned(self, wanted: int) -> int:
        """Give back pinned host memory, first of blocks that are not in a slot. Returns the bytes.

        Those blocks are then copied from pageable memory.
        """
        self._streams.host_wait()
        held = {slot.holds for slot in self._slots}
        return self._slabs.release(wanted, sorted(range(len(self._blocks)), key=lambda index: index in held))

    def prefetch(self) -> None:
        """Fetch the first streamed blocks of a pass, so that it starts with them."""
        if self._pass is None:
            self._fetch(-1, frozenset(), wait_for_host=True)

    def walk(
        self, blocks: Sequence[nn.Module], skip: Collection[int] = ()
    ) -> Generator[tuple[int, nn.Module], None, None]:
        """Yield ``(index, block)`` in order without the skipped ones.

        While a block is out its weights are on the device; skipped blocks are not fetched.

        Raises:
            PassEnded: the weights were moved, or another pass began, while this one waited.
        """
        self.end_pass()
        mine = self._pass = _Pass(frozenset(skip))
        try:
            self._fetch(-1, mine.skip)
            for index, block in enumerate(blocks):
                if index in mine.skip:
                    continue
                self._enter(index)
                yield index, block
                if self._pass is not mine:
                    raise PassEnded("the weights of this pass were unloaded or taken by another pass")
                self._leave()
            self._fetch(-1, mine.skip, wait_for_host=True)
        finally:
            if self._pass is mine:
                self.end_pass()

    def end_pass(self) -> None:
        """Take the weights back from the pass that runs, if any."""
        self._release_current()
        self._pass = None

    def close(self) -> None:
        """End the pass, wait for the copies in flight, give back slots and pinned memory."""
        self.end_pass()
        self._streamed = frozenset()
        _give_back(self._streams, self._slots, self._slabs)

    def _drop_slots(self) -> None:
        if any(slot.used_by is not None for slot in self._slots):
            self.end_pass()
        if self._slots:
            self._streams.host_wait()
            self._slots.clear()

    def _enter(self, index: int) -> None:
        assert self._pass is not None
        self._pass.current = index
        if index not in self._streamed:
            return
        slot = self._slot_of(index)
        if slot is None:
            slot = self._upload(index, self._window(index - 1, self._pass.skip))
        self._streams.compute_waits(slot.ready)
        slot.used_by = index
        self._blocks[index].point_to(slot.views(self._blocks[index].layout))

    def _leave(self) -> None:
        assert self._pass is not None
        assert self._pass.current is not None
        position = self._pass.current
        self._release_current()
        self._fetch(position, self._pass.skip)

    def _release_current(self) -> None:
        """What was queued until now is the last that reads the slot in use."""
        if self._pass is not None:
            self._pass.current = None
        for slot in self._slots:
            if slot.used_by is not None:
                self._blocks[slot.used_by].point_to_masters()
                slot.free = self._streams.after_compute(slot.free)
                slot.used_by = None
                slot.releases = 1 + max(other.releases for other in self._slots)

    def _fetch(self, position: int, skip: frozenset[int], *, wait_for_host: bool = False) -> None:
        """Fetch the streamed blocks that come next after ``position``.

        A copy that keeps the host busy (from pageable memory, or into a slab that must be filled first) is
        left for one block, so that the next block is queued before and the device computes meanwhile.
        """
        window = self._window(position, skip)
        missing = [index for index in window if self._slot_of(index) is None]
        due = [i for i in missing if wait_for_host or i in self._slabs or i in self._deferred]
        self._deferred = frozenset(missing) - set(due)
        for index in due:
            self._upload(index, window)

    def _window(self, position: int, skip: frozenset[int]) -> list[int]:
        """As many streamed blocks as there are slots, in the order of use after ``position``."""
        count = len(self._blocks)
        order = (*range(position + 1, count), *range(min(position + 1, count)))
        return [i for i in order if i in self._streamed and i not in skip][: len(self._slots)]

    def _slot_of(self, index: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.holds == index), None)

    def _upload(self, index: int, window: Collection[int]) -> _Slot:
        """Queue the copy of a block into a slot that holds nothing of the window; no block is out now.

        Of several slots the one released first: computations may still read the one released last, and the
        copy would wait for them.
        """
        others = [slot for slot in self._slots if slot.holds not in window]
        slot = min(others, key=lambda slot: slot.releases)
        group = self._blocks[index]
        slot.holds = None  # an interrupted copy leaves the slot without a block
        source = self._slabs.get(index, group)
        self._streams.copies_wait(slot.free)
        if source is not None:
            self._streams.copy(slot.buffer[: source.nbytes], source)
        else:
            for view, master in zip(slot.views(group.layout), group.masters, strict=True):
                self._streams.copy(view, master)
        slot.ready = self._streams.after_copies(slot.ready)
        slot.holds = index
        return slot


class _Pass:
    """One walk over the blocks: what it skips, and the block that is out."""

    def __init__(self, skip: frozenset[int]) -> None:
        self.skip = skip
        self.current: int | None = None


class _Slot:
    """Device memory for one block.

    Args:
        buffer: uint8.
        free: the point from which on it may be written.
    """

    def __init__(self, buffer: Tensor, free: Event) -> None:
        self.buffer = buffer
        self.free = free
        self.ready: Event | None = None
        self.holds: int | None = None
        self.used_by: int | None = None
        self.releases = 0  # counted over all slots: the larger, the later it was released
        self._views: dict[SlabLayout, list[Tensor]] = {}

    def views(self, layout: SlabLayout) -> list[Tensor]:
        """The tensors of a block in this slot; the same objects each time."""
        if layout not in self._views:
            with torch.inference_mode(False):
                self._views[layout] = layout.views(self.buffer)
        return self._views[layout]


def _give_back(streams: Streams, slots: list[_Slot], slabs: PinnedSlabs) -> None:
    """Memory that copies read or write is given back after they are done."""
    streams.host_wait()
    slots.clear()
    slabs.close()
