"""A device's queue of computations and its queue of copies, and the events that order them."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

Event = Any
"""A point in a queue. Opaque; belongs to the ``Streams`` that made it."""


class Streams(Protocol):
    """Two queues of one device. Nothing here makes the host wait but ``host_wait``."""

    def allocate(self, nbytes: int) -> Tensor:
        """Device memory, uint8 ``[nbytes]``, that belongs to the compute queue.

        Its memory may still be in use by computations queued earlier: copies into it wait for
        ``after_compute``.
        """
        ...

    def after_compute(self, event: Event | None = None) -> Event:
        """The point after all computations queued so far.

        Args:
            event: to be used again; whoever waits for its former point already does.
        """
        ...

    def after_copies(self, event: Event | None = None) -> Event:
        """The point after all copies queued so far; ``event`` as above."""
        ...

    def copies_wait(self, event: Event) -> None:
        """Copies queued from now on start after ``event``."""
        ...

    def compute_waits(self, event: Event) -> None:
        """Computations queued from now on start after ``event``."""
        ...

    def copy(self, destination: Tensor, source: Tensor) -> None:
        """Queue a copy from the host to the device; ``source`` must live until it is done."""
        ...

    def host_wait(self) -> None:
        """Return when every queued copy is done: for closing, never in the loop over blocks."""
        ...


class CudaStreams:
    """Copies on a stream of their own; computations on the stream that is current when a method is called.

    Args:
        device: CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)

    @torch.inference_mode(False)  # slots are written to in and out of inference mode
    def allocate(self, nbytes: int) -> Tensor:
        """See ``Streams``."""
        return torch.empty(nbytes, dtype=torch.uint8, device=self._device)

    def after_compute(self, event: Event | None = None) -> Event:
        """See ``Streams``."""
        return self._record(event, torch.cuda.current_stream(self._device))

    def after_copies(self, event: Event | None = None) -> Event:
        """See ``Streams``."""
        return self._record(event, self._copies)

    def copies_wait(self, event: Event) -> None:
        """See ``Streams``."""
        self._copies.wait_event(event)

    def compute_waits(self, event: Event) -> None:
        """See ``Streams``."""
        torch.cuda.current_stream(self._device).wait_event(event)

    def copy(self, destination: Tensor, source: Tensor) -> None:
        """See ``Streams``. From memory that is not pinned the host waits for its turn."""
        with torch.cuda.stream(self._copies):
            destination.copy_(source, non_blocking=True)

    def host_wait(self) -> None:
        """See ``Streams``."""
        self._copies.synchronize()

    def _record(self, event: Event | None, stream: torch.cuda.Stream) -> Event:
        with torch.cuda.device(self._device):
            recorded = event or torch.cuda.Event()
            recorded.record(stream)
        return recorded


class SynchronousStreams:
    """Both queues are one, in the order of the calls: for devices without streams, and for hosts.

    Args:
        device: any device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @torch.inference_mode(False)
    def allocate(self, nbytes: int) -> Tensor:
        """See ``Streams``."""
        return torch.empty(nbytes, dtype=torch.uint8, device=self._device)

    def after_compute(self, event: Event | None = None) -> Event:
        """Everything queued earlier is earlier."""
        return event

    def after_copies(self, event: Event | None = None) -> Event:
        """Everything queued earlier is earlier."""
        return event

    def copies_wait(self, event: Event) -> None:
        """Nothing to wait for."""

    def compute_waits(self, event: Event) -> None:
        """Nothing to wait for."""

    def copy(self, destination: Tensor, source: Tensor) -> None:
        """Copy now."""
        destination.copy_(source)

    def host_wait(self) -> None:
        """Nothing to wait for."""


def streams_for(device: torch.device) -> Streams:
    """The queues of a device."""
    return CudaStreams(device) if device.type == "cuda" else SynchronousStreams(device)
