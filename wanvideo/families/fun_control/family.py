"""Fun Control as the engine sees it: the points "control", "image" and "fun_reference"."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...conditioning.control import CONTROL, IMAGE_RANK, ControlChannels, StartImageChannels
from ...conditioning.image import IMAGE, MASK_CHANNELS, ImageInput, mask_and_latent
from ...transformer.model import WanTransformer
from ...weights.checkpoint import Checkpoint
from ...weights.detect import ModelSpec
from ..family import Family
from .inputs import FUN_REFERENCE
from .reference import ReferenceEmbedding, ReferenceTokens


@dataclass(frozen=True)
class MaskAndLatentChannels:
    """Channel part of Fun Control 2.2: the mask of the known pictures, then their latent; zeros without.

    Args:
        width: four and the channels of the latent.
    """

    width: int
    rank: int = IMAGE_RANK
    required: str = ""

    def channels(self, family_input: ImageInput | None, latent: Tensor) -> Tensor:
        """``[1, width, T, H, W]``, see ``transformer.points.ChannelPart``."""
        return mask_and_latent(family_input, latent)


class FunControl(Family):
    """Wan 2.1 Fun Control (1.0 and 1.1), Wan 2.2 Fun Control A14B and 5B."""

    name = "fun_control"
    capabilities = frozenset({"fun control", "fun reference"})

    def extend(self, model: WanTransformer, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        """Fill the channels behind the noise, and the reference's tokens where the file embeds one."""
        del checkpoint
        latent_channels = spec.config.out_channels
        if "fun control" in spec.capabilities:
            model.points.add_channels(CONTROL, ControlChannels(latent_channels))
            has_mask = spec.config.in_channels == 3 * latent_channels + MASK_CHANNELS
            model.points.add_channels(
                IMAGE,
                MaskAndLatentChannels(MASK_CHANNELS + latent_channels)
                if has_mask
                else StartImageChannels(latent_channels),
            )
        if "fun reference" in spec.capabilities:
            model.ref_conv = ReferenceEmbedding(latent_channels, spec.config.dim)
            model.points.segments[FUN_REFERENCE] = ReferenceTokens(model.ref_conv)


FAMILY = FunControl()
