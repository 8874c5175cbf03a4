"""A run, as the inputs of families see it, and how latents are fitted to it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from ..transformer.config import WanConfig
from ..vae.latent_space import LatentSpace, described_vae
from .geometry import VideoGeometry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSetup:
    """Sizes of a run.

    Args:
        config: of the transformer.
        geometry: of the video itself.
        space: of its latents.
        leading_frames: latent frames in front of the video's own.
        trailing_frames: latent frames behind them.
        device: where the run computes.
        seed: of its noise.
    """

    config: WanConfig
    geometry: VideoGeometry
    space: LatentSpace
    leading_frames: int = 0
    trailing_frames: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0

    @property
    def latent_frames(self) -> int:
        """Frames of the latent that is sampled."""
        return self.leading_frames + self.geometry.latent_frames + self.trailing_frames

    def check_latent(self, latent: Tensor, *, input_name: str) -> None:
        """Refuse what is no latent of the model's VAE.

        Raises:
            InputError: another number of axes or channels.
        """
        if latent.ndim != 5:
            raise InputError(
                input_name, f"expected a video latent [B, C, T, H, W], got a shape of {tuple(latent.shape)}"
            )
        if latent.shape[1] != self.space.channels:
            made_by, wanted = described_vae(latent.shape[1]), described_vae(self.space.channels)
            raise InputError(
                input_name,
                f"its latent has {latent.shape[1]} channels and comes from {made_by}; this model works with "
                f"{wanted}: encode with that",
            )

    def fitted(self, latent: Tensor, *, input_name: str) -> Tensor:
        """A latent in the picture size of the run, normalised, float32, on the device; frames as they are.

        Args:
            latent: un-normalised ``[B, C, T, H, W]``; another picture size is resized, which is said.
            input_name: for messages.

        Raises:
            InputError: see :meth:`check_latent`.
        """
        self.check_latent(latent, input_name=input_name)
        size = (self.geometry.latent_height, self.geometry.latent_width)
        latent = latent.to(self.device, torch.float32)
        if latent.shape[-2:] != size:
            stride = self.geometry.spatial_stride
            log.warning(
                "%s: made for %dx%d, the video is %dx%d; resized",
                input_name,
                latent.shape[-1] * stride,
                latent.shape[-2] * stride,
                self.geometry.width,
                self.geometry.height,
            )
            latent = resized(latent, size)
        return self.space.normalise(latent)

    def in_place(self, values: Tensor, *, axis: int = 2) -> Tensor:
        """A tensor of the video's frames with zeros for the leading and trailing ones.

        Args:
            values: one entry per latent frame of the video along ``axis``; one that has entries for the
                trailing frames already is only led.
            axis: its time axis.
        """
        missing = self.latent_frames - self.leading_frames - values.shape[axis]
        padding = [0, 0] * (values.ndim - 1 - axis) + [self.leading_frames, max(0, missing)]
        return functional.pad(values, padding)


def resized(latent: Tensor, size: tuple[int, int]) -> Tensor:
    """``[B, C, T, H, W]`` with rows and columns interpolated to ``size``."""
    return functional.interpolate(
        latent, size=(latent.shape[2], *size), mode="trilinear", align_corners=False
    )
