"""Known pictures of a video: the start image, the end image, any masked frames."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import Self

from ..errors import InputError
from ..sampling.edits import CleanFrames, LatentEdit
from ..vae.latent_space import WIDE_LATENT_CHANNELS
from .conditioning import FamilyInput
from .decode_plan import DecodePlan
from .run_setup import RunSetup
from .timed import Timed

log = logging.getLogger(__name__)

IMAGE = "image"
MASK_CHANNELS = 4  # one per pixel frame of a latent frame
WHOLE_FRAMES_ONLY = (
    "this model takes pictures as whole latent frames only; for an end image encode it alone with WanVideo "
    "Encode and add it with WanVideo Add Extra Latent at latent_index -1"
)


@dataclass(frozen=True)
class ImageInput(FamilyInput):
    """What is known of a video, encoded as a whole with grey where nothing is known.

    How a model takes it is up to the model: its channel part makes channels of mask and latent; the 5B
    models (latents of 48 channels) besides keep known frames clean, see :meth:`prepared`.

    Args:
        latent: ``[1, C, T, h, w]``, un-normalised until prepared.
        mask: ``[1, 4, T, h, w]``, 1 where a pixel frame is known.
        is_last_alone: the last latent frame is the end image, encoded as a picture of its own, behind
            the frames of the video (for models that know only start images).
        reference_frames: so many latent frames at the start are references in front of the video.
        is_first: ``[1, 1, T, 1, 1]``, 1 at the first frame of the video; made when prepared, since leading
            frames and windows move it.
        clean_frames: frames of the run that stay as they are; found when it is prepared.
    """

    needs: ClassVar[str] = "an image-to-video model; this one makes video from text alone"

    latent: Timed
    mask: Timed
    is_last_alone: bool = False
    reference_frames: int = 0
    is_first: Timed | None = None
    clean_frames: tuple[int, ...] = ()

    @property
    def leading_frames(self) -> int:
        """The references."""
        return self.reference_frames

    @property
    def trailing_frames(self) -> int:
        """The end image, if it is encoded on its own."""
        return int(self.is_last_alone)

    def check(self, setup: RunSetup) -> None:
        """Refuse a latent of another VAE or length, and pictures this model cannot be shown.

        Raises:
            InputError: it names what was given and what was expected.
        """
        setup.check_latent(self.latent.values, input_name="image_embeds")
        added = self.reference_frames + self.trailing_frames
        frames, expected = self.latent.values.shape[2] - added, setup.geometry.latent_frames
        if frames != expected:
            raise InputError(
                "image_embeds", f"the image was encoded for {frames} latent frames, this video has {expected}"
            )
        mask = self.mask.values
        if _takes_no_channels(setup) and mask.any() and not _known_frames(mask):
            raise InputError("image_embeds", f"no latent frame is known as a whole, and {WHOLE_FRAMES_ONLY}")

    def prepared(self, setup: RunSetup) -> Self:
        """Normalised, in the picture size of the run; of foreign leading frames nothing is known.

        Frames the 5B models keep clean: where there are image channels the first of the video, if it is known
        as a whole (VideoX-Fun, ``pipeline_wan2_2_fun_inpaint.py``); where there are none every known frame.
        """
        latent = setup.fitted(self.latent.values, input_name="image_embeds")
        mask = self.mask.values.to(latent)
        if mask.shape[-2:] != latent.shape[-2:]:
            mask = functional.interpolate(mask, size=latent.shape[2:], mode="nearest")
        mask = self._placed(mask, setup)
        first = torch.zeros((1, 1, setup.geometry.latent_frames, 1, 1), device=latent.device)
        first[:, :, 0] = 1.0
        return replace(
            self,
            latent=Timed(self._placed(latent, setup)),
            mask=Timed(mask),
            is_first=Timed(setup.in_place(first)),
            clean_frames=_clean_frames(mask, setup),
        )

    def _placed(self, values: Tensor, setup: RunSetup) -> Tensor:
        """``[1, c, T, h, w]`` with its references right before the video."""
        own, first = self.reference_frames, setup.leading_frames
        placed = setup.in_place(values[:, :, own:])
        placed[:, :, first - own : first] = values[:, :, :own]
        return placed

    def window(self, frames: Sequence[int]) -> Self:
        """Cut to latent frames of the run."""
        kept = tuple(new for new, old in enumerate(frames) if old in self.clean_frames)
        return replace(super().window(frames), clean_frames=kept)

    def frame_timesteps(self, timestep: float) -> Mapping[int, float]:
        """Clean frames are at timestep 0."""
        del timestep
        return dict.fromkeys(self.clean_frames, 0.0)

    def edits(self) -> Sequence[LatentEdit]:
        """Keep the clean frames."""
        if not self.clean_frames:
            return ()
        return (CleanFrames(self.latent.values[:, :, list(self.clean_frames)], self.clean_frames),)

    def decode_plan(self) -> DecodePlan:
        """The references and an end image of its own are no part of the video."""
        return DecodePlan(leading_frames=self.reference_frames, is_last_alone=self.is_last_alone)

    def preview(self) -> tuple[Tensor, Tensor]:
        """Latent ``[1, C, T, h, w]`` and mask ``[T, h, w]``, 1 where the model paints."""
        return self.latent.values, 1.0 - self.mask.values[0].amin(dim=0)


def _takes_no_channels(setup: RunSetup) -> bool:
    return setup.config.in_channels == setup.config.out_channels


def _known_frames(mask: Tensor) -> tuple[int, ...]:
    """Latent frames known as a whole, by ``[1, 4, T, h, w]``."""
    is_known = mask.amin(dim=(0, 1, 3, 4)) >= 1
    return tuple(frame for frame in range(mask.shape[2]) if is_known[frame])


def _clean_frames(mask: Tensor, setup: RunSetup) -> tuple[int, ...]:
    if setup.space.channels != WIDE_LATENT_CHANNELS:
        return ()  # only the 5B models keep known frames clean
    known = _known_frames(mask)
    if not _takes_no_channels(setup):
        return tuple(frame for frame in known if frame == setup.leading_frames)
    if known:
        log.info("image_embeds: the model has no image channels; latent frames %s stay as given", list(known))
    if int((mask.amax(dim=(0, 1, 3, 4)) > 0).sum()) > len(known):
        log.warning("image_embeds: only latent frames %s are used, %s", list(known), WHOLE_FRAMES_ONLY)
    return known
