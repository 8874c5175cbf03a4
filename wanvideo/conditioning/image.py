"""Known pictures of a video: the start image, the end image, any masked frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import Self

from ..errors import InputError
from .conditioning import FamilyInput
from .decode_plan import DecodePlan
from .run_setup import RunSetup
from .timed import Timed

IMAGE = "image"
MASK_CHANNELS = 4  # one per pixel frame of a latent frame


@dataclass(frozen=True)
class ImageInput(FamilyInput):
    """What is known of a video, encoded as a whole with grey where nothing is known.

    How it becomes channels is up to the model: mask and latent, or the first latent frame alone.

    Args:
        latent: ``[1, C, T, h, w]``, un-normalised until prepared.
        mask: ``[1, 4, T, h, w]``, 1 where a pixel frame is known.
        is_last_alone: the last latent frame is the end image, encoded as a picture of its own, behind
            the frames of the video (for models that know only start images).
        is_first: ``[1, 1, T, 1, 1]``, 1 at the first frame of the video; made when prepared, since leading
            frames and windows move it.
    """

    needs: ClassVar[str] = "an image-to-video model; this one makes video from text alone"

    latent: Timed
    mask: Timed
    is_last_alone: bool = False
    is_first: Timed | None = None

    @property
    def trailing_frames(self) -> int:
        """The end image, if it is encoded on its own."""
        return int(self.is_last_alone)

    def check(self, setup: RunSetup) -> None:
        """Refuse a latent of another VAE or length.

        Raises:
            InputError: it names both.
        """
        setup.check_latent(self.latent.values, input_name="image_embeds")
        frames, expected = self.latent.values.shape[2], setup.geometry.latent_frames + self.trailing_frames
        if frames != expected:
            raise InputError(
                "image_embeds", f"the image was encoded for {frames} latent frames, this video has {expected}"
            )

    def prepared(self, setup: RunSetup) -> Self:
        """Normalised, in the picture size of the run, with leading frames of which nothing is known."""
        latent = setup.fitted(self.latent.values, input_name="image_embeds")
        mask = self.mask.values.to(latent)
        if mask.shape[-2:] != latent.shape[-2:]:
            mask = functional.interpolate(mask, size=latent.shape[2:], mode="nearest")
        first = torch.zeros((1, 1, setup.geometry.latent_frames, 1, 1), device=latent.device)
        first[:, :, 0] = 1.0
        return replace(
            self,
            latent=Timed(setup.in_place(latent)),
            mask=Timed(setup.in_place(mask)),
            is_first=Timed(setup.in_place(first)),
        )

    def decode_plan(self) -> DecodePlan:
        """The end image is decoded as it was encoded."""
        return DecodePlan(is_last_alone=self.is_last_alone)

    def preview(self) -> tuple[Tensor, Tensor]:
        """Latent ``[1, C, T, h, w]`` and mask ``[T, h, w]``, 1 where the model paints."""
        return self.latent.values, 1.0 - self.mask.values[0].amin(dim=0)


def mask_and_latent(value: ImageInput | None, latent: Tensor) -> Tensor:
    """The channels most models want: four of the mask, then the image latent; zeros without an image.

    Args:
        value: prepared.
        latent: ``[B, C, T, h, w]`` they are joined to.
    """
    if value is None:
        shape = (1, MASK_CHANNELS + latent.shape[1], *latent.shape[2:])
        return torch.zeros(shape, dtype=latent.dtype, device=latent.device)
    return torch.cat([value.mask.values, value.latent.values], dim=1)
