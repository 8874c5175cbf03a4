"""Tensors that run along the video, cut to some of its latent frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from operator import is_
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from .geometry import TEMPORAL_STRIDE

Clock = Literal["latent", "pixel"] | int
T = TypeVar("T")


@dataclass(frozen=True)
class Timed:
    """A tensor and the clock of its time axis.

    Args:
        values: the tensor.
        axis: its time axis; 2 is that of a latent ``[B, C, T, H, W]``.
        clock: "latent": an entry per latent frame; "pixel": 1 + 4n entries, one for the first latent
            frame and four for every other; a number: so many entries per latent frame.
    """

    values: Tensor
    axis: int = 2
    clock: Clock = "latent"

    def window(self, frames: Sequence[int]) -> Timed:
        """Itself, cut to latent frames.

        Args:
            frames: indices of latent frames, in the order wanted. On the pixel clock the first of them
                keeps one entry, the last of its group, since the window is a video of 1 + 4n frames.
        """
        index = torch.tensor(self._entries(frames), dtype=torch.long, device=self.values.device)
        return replace(self, values=self.values.index_select(self.axis, index))

    def _entries(self, frames: Sequence[int]) -> list[int]:
        if self.clock == "pixel":
            last = [TEMPORAL_STRIDE * frame for frame in frames]
            groups = [range(end - TEMPORAL_STRIDE + 1, end + 1) for end in last[1:]]
            return [*last[:1], *(entry for group in groups for entry in group)]
        per_frame = 1 if self.clock == "latent" else self.clock
        return [frame * per_frame + part for frame in frames for part in range(per_frame)]


def windowed(value: T, frames: Sequence[int]) -> T:
    """``value`` with every :class:`Timed` in it cut to latent frames; a frozen dataclass by its fields.

    Args:
        value: a ``Timed``, or a tuple or dataclass that may hold some; everything else is returned as it is.
        frames: indices of latent frames.
    """
    if isinstance(value, Timed):
        return cast("T", value.window(frames))
    if isinstance(value, tuple):
        return cast("T", _windowed_entries(cast("tuple[Any, ...]", value), frames))
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed = {f.name: windowed(getattr(value, f.name), frames) for f in fields(value)}
    different = {name: entry for name, entry in changed.items() if entry is not getattr(value, name)}
    return cast("T", replace(value, **different)) if different else value


def _windowed_entries(entries: tuple[Any, ...], frames: Sequence[int]) -> tuple[Any, ...]:
    cut = tuple(windowed(entry, frames) for entry in entries)
    return entries if all(map(is_, cut, entries)) else cut
