"""The node that came before WanVideo ImageToVideo Encode; graphs still have it."""

from __future__ import annotations

from math import sqrt

from torch import Tensor

from ..wanvideo.conditioning.clip import ClipEmbeds
from ..wanvideo.conditioning.clip_input import CLIP, ClipInput
from ..wanvideo.conditioning.geometry import VideoGeometry
from ..wanvideo.conditioning.image import IMAGE
from .base import CATEGORY, WanNode
from .clip_encoding import encoder_of, offload_clip_vision
from .host import io
from .inputs import frames_input, size_input, strength_input
from .known_pictures import KnownPictures
from .notices import warn
from .sockets import ImageEmbeds, ImageEmbedsSocket
from .vae import vae_input
from .video_vae import as_video_vae, offload


class WanVideoImageClipEncode(WanNode):
    """CLIP and VAE in one node, for a start image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoImageClipEncode",
            display_name="WanVideo ImageClip Encode (Deprecated)",
            category=CATEGORY,
            description="Kept for older graphs; WanVideo ClipVision Encode and WanVideo ImageToVideo Encode "
            "do the same and more.",
            inputs=[
                io.ClipVision.Input("clip_vision"),
                io.Image.Input("image", tooltip="First frame of the video."),
                vae_input(),
                size_input("generation_width", 832),
                size_input("generation_height", 480),
                frames_input(),
                io.Boolean.Input("force_offload", default=True, optional=True),
                strength_input(
                    "noise_aug_strength",
                    "Noise added to the picture first.",
                    default=0.0,
                    optional=True,
                ),
                strength_input("latent_strength", "Contrast of the picture about grey.", optional=True),
                strength_input(
                    "clip_embed_strength",
                    "Factor on the CLIP rows; models norm every row first, so it does next to nothing.",
                    optional=True,
                ),
                io.Boolean.Input(
                    "adjust_resolution",
                    default=True,
                    optional=True,
                    tooltip="Keep the shape of the picture; width and height then only say how many pixels.",
                ),
            ],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
            is_deprecated=True,
        )

    @classmethod
    def run(
        cls,
        *,
        clip_vision: object,
        image: Tensor,
        vae: object,
        force_offload: bool = True,
        adjust_resolution: bool = True,
        **numbers: float,
    ) -> io.NodeOutput:
        """Encode the picture with both."""
        encoder = as_video_vae(vae)
        width, height = int(numbers["generation_width"]), int(numbers["generation_height"])
        if adjust_resolution:
            width, height = same_area(width, height, image.shape[1] / image.shape[2])
        frames, stride = int(numbers["num_frames"]), encoder.spatial_stride
        geometry, said = VideoGeometry.snapped(width, height, frames, spatial_stride=stride)
        if said and not adjust_resolution:
            warn(cls, "; ".join(said))
        rows = encoder_of(clip_vision, crop=True)(image)[:1] * numbers.get("clip_embed_strength", 1.0)
        known = KnownPictures(
            image[:1],
            noise=numbers.get("noise_aug_strength", 0.0),
            contrast=numbers.get("latent_strength", 1.0),
        )
        picture = known.encoded(encoder, geometry, lambda sentence: warn(cls, sentence))
        if force_offload:
            offload_clip_vision(clip_vision)
            offload(vae)
        embeds = ImageEmbeds(geometry).with_input(IMAGE, picture)
        return io.NodeOutput(embeds.with_input(CLIP, ClipInput.of(ClipEmbeds(rows))))


def same_area(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Width and height of about ``width * height`` pixels whose ratio of height to width is ``aspect``."""
    area = width * height
    return int(sqrt(area / aspect)), int(sqrt(area * aspect))
