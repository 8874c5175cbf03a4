"""A control video (edges, depth, poses, ...), and the channels of models that take one.

Fun Control and control LoRAs of Wan take its latent as channels beside the noise.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from .conditioning import FamilyInput
from .image import ImageInput
from .length_fit import LengthFit, fit_remark, fitted_latent
from .run_setup import RunSetup
from .timed import Timed

log = logging.getLogger(__name__)

CONTROL = "control"
CONTROL_RANK = 1  # right after the noise
IMAGE_RANK = 2


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


@dataclass(frozen=True)
class ControlChannels:
    """Channel part: the control video's latent; zeros without one and outside its steps.

    Args:
        width: channels of the latent.
    """

    width: int
    rank: int = CONTROL_RANK
    required: str = ""

    def channels(self, family_input: ControlInput | None, latent: Tensor) -> Tensor:
        """``[1, width, T, H, W]``, see ``transformer.points.ChannelPart``."""
        if family_input is None:
            return no_channels(self.width, latent)
        return family_input.latent.values


@dataclass(frozen=True)
class StartImageChannels:
    """Channel part: the latent of the start image in the video's first frame, zeros in all others, no mask.

    The form in which Fun Control and Fun Camera of Wan 2.1 take an image. Masks and an end image have no
    place in it.

    Args:
        width: channels of the latent.
    """

    width: int
    rank: int = IMAGE_RANK
    required: str = ""

    def channels(self, family_input: ImageInput | None, latent: Tensor) -> Tensor:
        """``[1, width, T, H, W]``, see ``transformer.points.ChannelPart``."""
        if family_input is None or family_input.is_first is None:
            return no_channels(self.width, latent)
        is_known = family_input.mask.values.amax(dim=(1, 3, 4), keepdim=True) > 0
        kept = family_input.is_first.values * is_known
        return torch.where(kept > 0, family_input.latent.values, 0.0)


def no_channels(width: int, latent: Tensor) -> Tensor:
    """``[1, width, T, H, W]`` of zeros for a latent ``[B, C, T, H, W]``."""
    return torch.zeros((1, width, *latent.shape[2:]), dtype=latent.dtype, device=latent.device)
