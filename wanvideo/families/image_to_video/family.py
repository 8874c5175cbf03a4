"""Image to video as the engine sees it: the points "image" and "clip"."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...conditioning.channel_parts import MaskAndLatentChannels, NoChannels
from ...conditioning.clip_input import CLIP, ClipInput
from ...conditioning.image import IMAGE
from ...transformer.model import WanTransformer
from ...weights.checkpoint import Checkpoint
from ...weights.detect import ModelSpec
from ..family import Family
from .image_embedding import ImageEmbedding

POSITIONS = "img_emb.emb_pos"
NO_IMAGE = (
    "this is an image-to-video model and needs a start image; connect WanVideo ImageToVideo Encode instead "
    "of WanVideo Empty Embeds"
)
NO_CLIP = (
    "the model looks at the start image through CLIP as well, and no clip_embeds are connected to WanVideo "
    "ImageToVideo Encode: it runs without that branch and follows the image less"
)


@dataclass(frozen=True)
class ClipRows:
    """The rows of the CLIP branch.

    Args:
        embedder: ``img_emb`` of the model.
    """

    embedder: ImageEmbedding
    when_missing: str = NO_CLIP

    def rows(self, family_input: ClipInput) -> Tensor:
        """``[P, L, D]``; a model with positions takes two pictures as one row of tokens."""
        rows = family_input.rows
        if self.embedder.takes_a_pair and rows.shape[0] == 2:
            rows = rows.flatten(0, 1)[None]
        return self.embedder(rows)


class ImageToVideo(Family):
    """Wan 2.1 I2V and FLF2V, Wan 2.2 I2V and 5B, Fun InP; and the CLIP branch of every model that has one."""

    name = "image_to_video"

    def is_in(self, spec: ModelSpec) -> bool:
        """Whether the channels, the CLIP branch or a latent of the 5B models say so."""
        return bool({"i2v", "clip image"} & spec.capabilities) or _takes_clean_frames_only(spec)

    def extend(self, model: WanTransformer, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        """Fill "image" where mask and latent are joined to the noise, "clip" where there is a branch."""
        if "i2v" in spec.capabilities:
            # The 5B models see the start image in the latent, camera models their rays: both run without.
            is_optional = bool({"clean first frame", "fun camera"} & spec.capabilities)
            part = MaskAndLatentChannels(spec.config.out_channels, "" if is_optional else NO_IMAGE)
            model.points.add_channels(IMAGE, part)
        elif _takes_clean_frames_only(spec):
            model.points.add_channels(IMAGE, NoChannels())
        if "clip image" in spec.capabilities:
            positions = checkpoint.shape(POSITIONS)[1] if POSITIONS in checkpoint else 0
            model.img_emb = ImageEmbedding(model.config, positions=positions)
            model.points.context[CLIP] = ClipRows(model.img_emb)


def _takes_clean_frames_only(spec: ModelSpec) -> bool:
    return {"clean first frame", "t2v"} <= spec.capabilities


FAMILY = ImageToVideo()
