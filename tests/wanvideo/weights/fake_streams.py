"""A device that exists only as two queues, run late, early or in any legal order.

Computations and copies are recorded; nothing happens before the schedule runs it. Each takes two steps, so
that another queue can come between. Two checks find mistakes independently of each other: what a computation
reads must be its weights at both steps, and every two accesses of the same memory must be ordered by events
(vector clocks), whatever the schedule made of it. Memory is filled with rubbish when it is given back.
"""

from __future__ import annotations

import ctypes
import random
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from comfyui_wanvideo.wanvideo.weights.slab import Pinning
from torch import Tensor

Queue = Literal["compute", "copies"]
OTHER: dict[Queue, Queue] = {"compute": "copies", "copies": "compute"}
Clock = dict[Queue, int]  # how many operations of each queue are certainly done
SCHEDULES = ("late", "copies first", "compute first", "random")


@dataclass
class FakeEvent:
    """A point in a queue, which may be recorded again."""

    queue: Queue
    count: int
    clock: Clock


@dataclass
class Operation:
    """Two steps of work, after the operation of the other queue that it waits for."""

    steps: deque[Callable[[], None]]
    waits_for: int = 0


@dataclass
class Memory:
    """Who wrote and read a buffer: ``(queue, number of the operation)``."""

    name: str
    writes: list[tuple[Queue, int]] = field(default_factory=list)
    reads: list[tuple[Queue, int]] = field(default_factory=list)


class FakeStreams:
    """See the module.

    Args:
        schedule: one of ``SCHEDULES``.
        seed: of the random schedule.
    """

    def __init__(self, schedule: str = "late", seed: int = 0) -> None:
        self.violations: list[str] = []
        self.in_loop = False
        self.copied_bytes = 0
        self.copies = 0
        self.waits = 0
        self.live_bytes = 0
        self.fail_in: int | None = None  # copies until one is interrupted
        self.room: int | None = None
        self._schedule = schedule
        self._random = random.Random(seed)
        self._queues: dict[Queue, deque[Operation]] = {"compute": deque(), "copies": deque()}
        self._queued: Clock = {"compute": 0, "copies": 0}
        self._done: Clock = {"compute": 0, "copies": 0}
        self._clocks: dict[Queue, Clock] = {q: {"compute": 0, "copies": 0} for q in ("compute", "copies")}
        self._host: Clock = {"compute": 0, "copies": 0}
        self._memory: dict[int, Memory] = {}
        self._backings: list[bytearray] = []

    # What the engine calls.

    def allocate(self, nbytes: int) -> Tensor:
        if self.room is not None and self.live_bytes + nbytes > self.room:
            raise torch.OutOfMemoryError("no room on the fake device")
        backing = bytearray(max(nbytes, 1))
        tensor = torch.frombuffer(backing, dtype=torch.uint8)[:nbytes]
        self._backings.append(backing)  # lives on, so that a late operation harms nothing else
        start = tensor.data_ptr()
        self._memory[start] = Memory(f"buffer of {nbytes} bytes")
        self.live_bytes += nbytes
        weakref.finalize(tensor.untyped_storage(), self._freed, start, nbytes)

        def still_used_before() -> None:
            backing[:] = b"\xcd" * len(backing)

        self._access(start, writes="compute")
        self._queue("compute", still_used_before, lambda: None)
        return tensor

    def after_compute(self, event: FakeEvent | None = None) -> FakeEvent:
        return self._record("compute", event)

    def after_copies(self, event: FakeEvent | None = None) -> FakeEvent:
        return self._record("copies", event)

    def copies_wait(self, event: FakeEvent) -> None:
        self._wait("copies", event)

    def compute_waits(self, event: FakeEvent) -> None:
        self._wait("compute", event)

    def copy(self, destination: Tensor, source: Tensor) -> None:
        if self.fail_in is not None:
            self.fail_in -= 1
            if self.fail_in < 0:
                self.fail_in = None
                raise KeyboardInterrupt
        self.copies += 1
        self.copied_bytes += source.nbytes
        self._access(_base(destination), writes="copies")
        self._access(_base(source), reads="copies")
        to, half, stride = _bytes_at(destination), destination.nbytes // 2, destination.stride()

        def first() -> None:
            to[:half] = _content(source, stride)[:half]

        def second() -> None:
            to[half:] = _content(source, stride)[half:]

        self._queue("copies", first, second)

    def host_wait(self) -> None:
        self.waits += 1
        if self.in_loop:
            self.violations.append("the host waited in the loop")
        while self._queues["copies"]:
            if not self._step("copies"):
                self._step("compute")
        self._host = _joined(self._host, self._clocks["copies"])

    # What a test calls.

    def compute(self, tensors: Iterable[Tensor], expected: Sequence[Tensor], name: str) -> None:
        """Queue a computation that reads ``tensors`` and must find ``expected``."""
        tensors = list(tensors)
        places = [_bytes_at(tensor) for tensor in tensors]
        wanted = [_content(value, tensor.stride()) for value, tensor in zip(expected, tensors, strict=True)]
        for tensor in tensors:
            self._access(_base(tensor), reads="compute")

        def check() -> None:
            if any(bytes(place) != want for place, want in zip(places, wanted, strict=True)):
                self.violations.append(f"{name} computed with other weights")

        self._queue("compute", check, check)

    def drain(self) -> None:
        """Run everything that is queued."""
        while self._queues["compute"] or self._queues["copies"]:
            moved = [self._step("compute"), self._step("copies")]
            if not any(moved):
                raise AssertionError("the queues wait for each other")

    def pinning(self, budget: int | None = None) -> Pinning:
        """Pinning up to a budget in bytes that notices a slab given back too early."""
        pinned: dict[int, int] = {}

        def pin(slab: Tensor) -> bool:
            if budget is not None and sum(pinned.values()) + slab.nbytes > budget:
                return False
            pinned[slab.data_ptr()] = slab.nbytes
            self._memory[_base(slab)] = Memory(f"slab of {slab.nbytes} bytes")
            return True

        def unpin(slab: Tensor) -> None:
            del pinned[slab.data_ptr()]
            self._check_unused(self._memory.pop(_base(slab)))
            slab.fill_(0xEE)

        return Pinning(pin, unpin)

    # How it works.

    def _record(self, queue: Queue, event: FakeEvent | None) -> FakeEvent:
        clock = dict(self._clocks[queue])
        if event is None:
            return FakeEvent(queue, self._queued[queue], clock)
        event.queue, event.count, event.clock = queue, self._queued[queue], clock
        return event

    def _wait(self, queue: Queue, event: FakeEvent) -> None:
        self._clocks[queue] = _joined(self._clocks[queue], event.clock)
        if event.queue != queue:
            self._queue(queue, waits_for=event.count)

    def _queue(self, queue: Queue, *steps: Callable[[], None], waits_for: int = 0) -> None:
        self._queued[queue] += 1
        self._clocks[queue] = _joined(self._clocks[queue], self._host)
        self._clocks[queue][queue] = self._queued[queue]
        self._queues[queue].append(Operation(deque(steps), waits_for))
        self._run_some()

    def _run_some(self) -> None:
        if self._schedule == "copies first":
            while self._step("copies"):
                pass
        elif self._schedule == "compute first":
            while self._step("compute"):
                pass
        elif self._schedule == "random":
            for _ in range(self._random.randrange(5)):
                self._step(self._random.choice(("compute", "copies")))

    def _step(self, queue: Queue) -> bool:
        """Run one step of a queue, if it need not wait."""
        if not self._queues[queue]:
            return False
        operation = self._queues[queue][0]
        if operation.waits_for > self._done[OTHER[queue]]:
            return False
        if operation.steps:
            operation.steps.popleft()()
        if not operation.steps:
            self._queues[queue].popleft()
            self._done[queue] += 1
        return True

    def _access(self, start: int, *, reads: Queue | None = None, writes: Queue | None = None) -> None:
        """Check an access by the operation that is queued next."""
        memory = self._memory.get(start)
        queue = reads or writes
        if memory is None or queue is None:
            return
        known = _joined(self._clocks[queue], self._host)
        earlier = memory.writes + (memory.reads if writes else [])
        for other, number in earlier:
            if other != queue and known[other] < number:
                kind = "written" if writes else "read"
                self.violations.append(f"{memory.name} {kind} by {queue} while {other} may use it")
        (memory.writes if writes else memory.reads).append((queue, self._queued[queue] + 1))

    def _freed(self, start: int, nbytes: int) -> None:
        self.live_bytes -= nbytes
        self._check_unused(self._memory.pop(start))

    def _check_unused(self, memory: Memory) -> None:
        """Memory goes back in the order of the compute queue: it must be after all copies."""
        known = _joined(self._host, self._clocks["compute"] if memory.name.startswith("buffer") else {})
        for queue, number in memory.writes + memory.reads:
            if queue == "copies" and known["copies"] < number:
                self.violations.append(f"{memory.name} given back while it may be copied")


def _joined(one: Clock, other: Clock) -> Clock:
    return {queue: max(count, other.get(queue, 0)) for queue, count in one.items()}


def _base(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes_at(tensor: Tensor) -> memoryview:
    """The memory of a tensor without gaps, without keeping the tensor (and so its storage) alive."""
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _content(value: Tensor, stride: Sequence[int]) -> bytes:
    """The memory of a tensor laid out with these strides."""
    laid_out = torch.empty_strided(value.shape, stride, dtype=value.dtype).copy_(value)
    return bytes(torch.tensor([], dtype=torch.uint8).set_(laid_out.untyped_storage()).numpy())
