"""A control video: edges, depth, poses, lines (Fun Control, control LoRAs)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from .conditioning import FamilyInput
from .length_fit import LengthFit, fit_remark, fitted_latent
from .run_setup import RunSetup
from .timed import Timed

log = logging.getLogger(__name__)

CONTROL = "control"


@dataclass(frozen=True)
class ControlInput(FamilyInput):
    """A control video.

    Args:
        latent: ``[1, C, T, h, w]``, un-normalised until prepared; any length and picture size.
        fit: what is done about a clip shorter than the video.
    """

    needs: ClassVar[str] = "a Fun Control model, or a text-to-video model with a control LoRA"

    latent: Timed
    fit: LengthFit = "hold"

    def check(self, setup: RunSetup) -> None:
        """Refuse a latent of another VAE.

        Raises:
            InputError: it names the VAE to use.
        """
        setup.check_latent(self.latent.values, input_name="control latents")

    def prepared(self, setup: RunSetup) -> Self:
        """Normalised, of the size and length of the video; zeros in leading and trailing frames."""
        latent = setup.fitted(self.latent.values, input_name="control latents")
        given = setup.geometry.with_latent_frames(latent.shape[2]).frames
        remark = fit_remark("the control video", given, setup.geometry.frames, fit=self.fit)
        if remark:
            log.warning("%s", remark)
        latent = fitted_latent(latent, setup.geometry.latent_frames, fit=self.fit)
        return replace(self, latent=Timed(setup.in_place(latent)))

    def preview(self) -> tuple[Tensor, Tensor]:
        """Latent ``[1, C, T, h, w]`` and a mask ``[T, h, w]`` of ones: all of the video is painted."""
        latent = self.latent.values
        return latent, torch.ones(latent.shape[2:])
