"""What Time-to-Move is conditioned on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import Self

from ...conditioning.conditioning import FamilyInput
from ...conditioning.geometry import TEMPORAL_STRIDE
from ...conditioning.length_fit import fit_remark, fitted_latent
from ...conditioning.run_setup import RunSetup
from ...sampling.edits import LatentEdit
from .edit import DualClock, StepWindow

log = logging.getLogger(__name__)

TIME_TO_MOVE = "time_to_move"
IS_MOVED = 0.5  # mask values above count


@dataclass(frozen=True)
class TimeToMoveInput(FamilyInput):
    """A crude video of the wanted movement, and where to follow it closely.

    Args:
        reference: latent ``[1, C, T, h, w]``, un-normalised until prepared; any length and picture size.
        mask: ``[F, H, W]`` by pixel frames, 1 where it is followed; once prepared ``[1, 1, T, h, w]``.
        moved_steps: in which it is.
        seed: of the run's noise; known once prepared.
    """

    uses_model: ClassVar[bool] = False

    reference: Tensor
    mask: Tensor
    moved_steps: StepWindow
    seed: int = 0

    @property
    def first_step(self) -> int:
        """Where the run begins: steps before are spared."""
        return max(0, self.moved_steps.start)

    def check(self, setup: RunSetup) -> None:
        """Refuse a latent of another VAE.

        Raises:
            InputError: it names the VAE to use.
        """
        setup.check_latent(self.reference, input_name="reference_latents")

    def prepared(self, setup: RunSetup) -> Self:
        """Reference and mask in the size and length of the video; zeros in leading and trailing frames."""
        reference = setup.fitted(self.reference, input_name="reference_latents")
        frames = setup.geometry.latent_frames
        given = setup.geometry.with_latent_frames(reference.shape[2]).frames
        remark = fit_remark("the Time-to-Move reference", given, setup.geometry.frames)
        if remark:
            log.warning("%s", remark)
        reference = fitted_latent(reference, frames)
        mask = fitted_latent(latent_mask(self.mask).to(reference), frames)
        mask = functional.interpolate(mask, size=reference.shape[2:], mode="nearest")
        return replace(self, reference=setup.in_place(reference), mask=setup.in_place(mask), seed=setup.seed)

    def edits(self) -> Sequence[LatentEdit]:
        """The one edit that all of it is."""
        return (DualClock(self.reference, self.mask, self.moved_steps, self.seed),)


def latent_mask(mask: Tensor) -> Tensor:
    """A mask of latent frames: of each the first pixel frame counts.

    Args:
        mask: ``[F, H, W]`` by pixel frames.

    Returns:
        ``[1, 1, (F + 2) // 4 + 1, H, W]``, 0 or 1: frames 0, 1, 5, 9, ...
    """
    chosen = torch.cat([mask[:1], mask[1::TEMPORAL_STRIDE]])
    return (chosen > IS_MOVED).float()[None, None]
