"""Everything one model pass is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from .geometry import VideoGeometry

if TYPE_CHECKING:
    from ..sampling.plan import StepRange


@runtime_checkable
class FamilyInput(Protocol):
    """What a family prepared for a run: a frozen dataclass owned by the family."""

    @property
    def steps(self) -> StepRange:
        """The steps in which it takes part."""
        ...

    def window(self, frames: slice) -> FamilyInput:
        """Itself, cut to a run of latent frames."""
        ...


@dataclass(frozen=True)
class Conditioning:
    """Text and family inputs of one pass.

    Args:
        geometry: size of the video.
        text: encoded prompts ``[L, text_width]``, unpadded; several share the frames evenly. Empty for
            a pass without text: cross-attention to text is then left out.
        inputs: by family name.
    """

    geometry: VideoGeometry
    text: tuple[Tensor, ...] = ()
    inputs: Mapping[str, FamilyInput] = field(default_factory=dict[str, FamilyInput])

    def active(self, step: int, total_steps: int) -> Conditioning:
        """Without the inputs whose step range does not contain ``step``."""
        kept = {n: value for n, value in self.inputs.items() if value.steps.contains(step, total_steps)}
        return self if len(kept) == len(self.inputs) else replace(self, inputs=kept)

    def without(self, *names: str) -> Conditioning:
        """Without the named inputs, for a guidance pass."""
        return replace(self, inputs={n: v for n, v in self.inputs.items() if n not in names})

    def window(self, frames: slice) -> Conditioning:
        """Cut to latent frames ``frames``; every input cuts itself."""
        count = len(range(*frames.indices(self.geometry.latent_frames)))
        return replace(
            self,
            geometry=self.geometry.with_latent_frames(count),
            inputs={n: value.window(frames) for n, value in self.inputs.items()},
        )
