"""Fun Control as the engine sees it: the points "control", "image" and "fun_reference"."""

from __future__ import annotations

from ...conditioning.channel_parts import ControlChannels, MaskAndLatentChannels, StartImageChannels
from ...conditioning.control import CONTROL
from ...conditioning.image import IMAGE, MASK_CHANNELS
from ...transformer.model import WanTransformer
from ...weights.checkpoint import Checkpoint
from ...weights.detect import ModelSpec
from ..family import Family
from .inputs import FUN_REFERENCE
from .reference import ReferenceEmbedding, ReferenceTokens


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
                MaskAndLatentChannels(latent_channels) if has_mask else StartImageChannels(latent_channels),
            )
        if "fun reference" in spec.capabilities:
            model.ref_conv = ReferenceEmbedding(latent_channels, spec.config.dim)
            model.points.segments[FUN_REFERENCE] = ReferenceTokens(model.ref_conv)


FAMILY = FunControl()
