"""What a VAE remembers between frames, and how frames flow through its layers.

The Wan VAEs are causal in time: a layer needs its current input frame and a few earlier ones. So every
layer here takes one frame and gives the frames it can make of it (none, one or two), and the earlier
frames it needs lie in a cache that belongs to one pass over one clip and dies with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class FeatureCache:
    """Earlier input frames of each layer, for one pass over one clip.

    Args:
        rests_on: where the frames lie between two uses; None leaves them where they were computed.
    """

    def __init__(self, rests_on: torch.device | None = None) -> None:
        self._rests_on = rests_on
        self._frames: dict[nn.Module, Tensor] = {}
        self._visited: set[nn.Module] = set()

    def frames(self, layer: nn.Module) -> Tensor | None:
        """The frames kept for a layer, ``[B, C, n, H, W]``, wherever they rest; None when there are none.

        Read them with device operations only (``copy_(non_blocking=True)``, ``to``): a copy to the host
        may still be under way.
        """
        return self._frames.get(layer)

    def keep(self, layer: nn.Module, frames: Tensor) -> None:
        """Copy frames ``[B, C, n, H, W]`` for the layer's next call, in place of the ones before."""
        held = self._frames.get(layer)
        if held is None or held.shape != frames.shape:
            held = self._room_for(frames)
        # Into pinned memory and back on the same stream: the copies cannot overtake each other.
        held.copy_(frames, non_blocking=True)
        self._frames[layer] = held

    def take(self, layer: nn.Module) -> Tensor | None:
        """As :meth:`frames`, and forget them."""
        return self._frames.pop(layer, None)

    def is_first_visit(self, layer: nn.Module) -> bool:
        """True the first time it is asked for a layer."""
        is_first = layer not in self._visited
        self._visited.add(layer)
        return is_first

    def byte_count(self) -> int:
        """Bytes of all kept frames."""
        return sum(frames.nbytes for frames in self._frames.values())

    def _room_for(self, frames: Tensor) -> Tensor:
        device = self._rests_on or frames.device
        is_pinned = frames.is_cuda and device.type == "cpu"
        return torch.empty(frames.shape, dtype=frames.dtype, device=device, pin_memory=is_pinned)


class Stage(Protocol):
    """A layer in a stream: one frame ``[B, C, H, W]`` in, the frames that can be made of it out."""

    def __call__(self, x: Tensor, cache: FeatureCache) -> Sequence[Tensor]:
        """Take one frame."""
        ...


def stream(stages: Sequence[Stage], x: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
    """Run one frame through all stages; frames that split are carried to the end one after the other.

    So the late stages, which are the large ones, hold the activations of a single frame.
    """
    waiting = [(x, 0)]
    del x
    while waiting:
        frame, index = waiting.pop()
        while index < len(stages):
            produced = stages[index](frame, cache)
            index += 1
            if not produced:
                break
            frame = produced[0]
            waiting.extend((later, index) for later in reversed(produced[1:]))
        else:
            yield frame
