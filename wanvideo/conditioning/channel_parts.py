"""Extension point 1 for known pictures and control videos: in which form a model takes them as channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .control import ControlInput
from .image import MASK_CHANNELS, ImageInput

CONTROL_RANK = 1  # right after the noise
IMAGE_RANK = 2


@dataclass(frozen=True)
class ControlChannels:
    """The control video's latent; zeros without one and outside its steps.

    Args:
        width: channels of the latent.
    """

    width: int
    rank: int = CONTROL_RANK
    required: str = ""

    def channels(self, family_input: ControlInput | None, latent: Tensor) -> Tensor:
        """``[1, width, T, H, W]``, see ``transformer.points.ChannelPart``."""
        return no_channels(self.width, latent) if family_input is None else family_input.latent.values


@dataclass(frozen=True)
class MaskAndLatentChannels:
    """Four channels of the mask of known pictures, then their latent; zeros when nothing is known.

    Args:
        latent_channels: of the latent.
        required: see ``transformer.points.ChannelPart``.
    """

    latent_channels: int
    required: str = ""
    rank: int = IMAGE_RANK

    @property
    def width(self) -> int:
        """Number of channels."""
        return MASK_CHANNELS + self.latent_channels

    def channels(self, family_input: ImageInput | None, latent: Tensor) -> Tensor:
        """``[1, width, T, H, W]``, see ``transformer.points.ChannelPart``."""
        if family_input is None:
            return no_channels(self.width, latent)
        return torch.cat([family_input.mask.values, family_input.latent.values], dim=1)


@dataclass(frozen=True)
class StartImageChannels:
    """The latent of the start image in the video's first frame, zeros in all others, no mask.

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


@dataclass(frozen=True)
class NoChannels:
    """For models that are given known pictures as clean latent frames only (Wan 2.2 5B)."""

    width: int = 0
    rank: int = IMAGE_RANK
    required: str = ""

    def channels(self, family_input: ImageInput | None, latent: Tensor) -> Tensor:
        """``[1, 0, T, H, W]``: ``ImageInput`` keeps its known frames clean."""
        del family_input
        return no_channels(self.width, latent)


def no_channels(width: int, latent: Tensor) -> Tensor:
    """``[1, width, T, H, W]`` of zeros for a latent ``[B, C, T, H, W]``."""
    return torch.zeros((1, width, *latent.shape[2:]), dtype=latent.dtype, device=latent.device)
