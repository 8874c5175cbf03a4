"""The parts of a model that come to a device and leave it each as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from .slab import TensorGroup
from .streams import Streams


class Part:
    """Weights that come to a device together, as one buffer."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.group = TensorGroup(tensors)
        self._buffer: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes on a device when it is there."""
        return self.group.layout.total_bytes

    @property
    def resident_bytes(self) -> int:
        """Bytes on a device now."""
        return 0 if self._buffer is None else self._buffer.nbytes

    def load(self, streams: Streams) -> int:
        """Bring the weights to the device, unless they are there. Returns the bytes copied."""
        if self._buffer is not None or not self.nbytes:
            return 0
        # kept even when a copy fails, since others are in flight then
        buffer = self._buffer = streams.allocate(self.nbytes)
        with torch.inference_mode(False):
            views = self.group.layout.views(buffer)
        streams.copies_wait(streams.after_compute())
        for view, master in zip(views, self.group.masters, strict=True):
            streams.copy(view, master)
        streams.compute_waits(streams.after_copies())
        self.group.point_to(views)
        return self.nbytes

    def drop(self) -> int:
        """Point the weights to the masters. Returns the bytes freed on the device."""
        freed = self.resident_bytes
        if freed:
            self.group.point_to_masters()
            self._buffer = None
        return freed


def tensors_of(*modules: nn.Module) -> list[Tensor]:
    """Parameters and buffers of modules, each once."""
    found = chain.from_iterable((*module.parameters(), *module.buffers()) for module in modules)
    return list({id(tensor): tensor for tensor in found}.values())


def parts_of(
    module: nn.Module, blocks: Sequence[nn.Module], embedders: Sequence[nn.Module]
) -> tuple[Part, Part, list[Part]]:
    """The rest, the embedders and the blocks; a tensor that several of them share belongs to the rest."""
    owned = [tensors_of(*embedders), *(tensors_of(block) for block in blocks)]
    owners = Counter(id(tensor) for tensors in owned for tensor in tensors)
    embedder_part, *block_parts = (
        Part([tensor for tensor in tensors if owners[id(tensor)] == 1]) for tensors in owned
    )
    rest = Part([tensor for tensor in tensors_of(module) if owners[id(tensor)] != 1])
    return rest, embedder_part, block_parts


def farthest_first(candidates: Sequence[int], taken: Collection[int], count: int) -> list[int]:
    """Candidates, each the one farthest from all taken before, on a circle of ``count`` indices."""
    order: list[int] = []
    left = list(candidates)
    while left:
        near = [*taken, *order]
        best = max(
            left, key=lambda i: min((min((i - j) % count, (j - i) % count) for j in near), default=count)
        )
        left.remove(best)
        order.append(best)
    return order
