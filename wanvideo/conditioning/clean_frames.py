"""Latent frames that are given and stay as they are (Wan 2.2 5B, Pusa, continued videos)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from ..sampling.edits import CleanFrames, LatentEdit
from .conditioning import FamilyInput
from .run_setup import RunSetup

log = logging.getLogger(__name__)

CLEAN_FRAMES = "clean_frames"


@dataclass(frozen=True)
class GivenLatent:
    """A latent and its place.

    Args:
        latent: ``[1, C, n, h, w]``, un-normalised until prepared.
        index: of its first frame among the latent frames of the video; negative counts from the end.
    """

    latent: Tensor
    index: int


@dataclass(frozen=True, kw_only=True)
class CleanFramesInput(FamilyInput):
    """Frames that the model sees clean, at timestep 0, and that no step moves.

    Args:
        given: latents in the order they were added; a later one wins where they overlap. Once prepared,
            single frames of the run in ascending order.
    """

    uses_model: ClassVar[bool] = False

    given: tuple[GivenLatent, ...]

    def with_latent(self, latent: Tensor, index: int) -> Self:
        """Itself and one more latent."""
        return replace(self, given=(*self.given, GivenLatent(latent, index)))

    def check(self, setup: RunSetup) -> None:
        """Refuse latents of another VAE.

        Raises:
            InputError: it names both.
        """
        for each in self.given:
            setup.check_latent(each.latent, input_name="extra_latents")

    def prepared(self, setup: RunSetup) -> Self:
        """Normalised, fitted into the video; what does not fit is cut or moved, and said."""
        frames: dict[int, Tensor] = {}
        twice: list[int] = []
        for each in self.given:
            latent = setup.fitted(each.latent, input_name="extra_latents")
            latent, start = _inside(latent, each.index, setup.geometry.latent_frames)
            for offset in range(latent.shape[2]):
                place = setup.leading_frames + start + offset
                if place in frames:
                    twice.append(start + offset)
                frames[place] = latent[:, :, offset : offset + 1]
        if twice:
            log.warning("extra_latents: latent frames %s are given twice; the later one counts", twice)
        return replace(self, given=tuple(GivenLatent(frames[place], place) for place in sorted(frames)))

    def window(self, frames: Sequence[int]) -> Self:
        """The given frames in the window, at their places in it."""
        given = {each.index: each.latent for each in self.given}
        return replace(
            self,
            given=tuple(GivenLatent(given[old], new) for new, old in enumerate(frames) if old in given),
        )

    def frame_timesteps(self, timestep: float) -> Mapping[int, float]:
        """The given frames are at timestep 0."""
        del timestep
        return {each.index: 0.0 for each in self.given}

    def edits(self) -> Sequence[LatentEdit]:
        """Keep the given frames."""
        if not self.given:
            return ()
        latent = torch.cat([each.latent for each in self.given], dim=2)
        return (CleanFrames(latent, [each.index for each in self.given]),)


def _inside(latent: Tensor, index: int, frames: int) -> tuple[Tensor, int]:
    """A latent cut to ``frames``, and the nearest place to ``index`` where it lies inside the video."""
    if latent.shape[2] > frames:
        log.warning(
            "extra_latents: %d latent frames for a video of %d; the first %d are used",
            latent.shape[2],
            frames,
            frames,
        )
        latent = latent[:, :, :frames]
    wanted = frames + index if index < 0 else index
    start = max(0, min(wanted, frames - latent.shape[2]))
    if start != wanted:
        log.warning("extra_latents: latent_index %d lies outside the video; moved to %d", index, start)
    return latent, start
