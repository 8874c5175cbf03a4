"""What a video begins and ends with: encode pictures for image-to-video models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..wanvideo.conditioning.clip import as_clip_embeds
from ..wanvideo.conditioning.clip_input import CLIP, ClipInput
from ..wanvideo.conditioning.geometry import VideoGeometry
from ..wanvideo.conditioning.image import IMAGE
from ..wanvideo.errors import NotYetError
from .base import CATEGORY, WanNode
from .embeds import merged
from .host import io
from .image_clip_encode import WanVideoImageClipEncode
from .inputs import frames_input, size_input, strength_input
from .known_pictures import KnownPictures, LatentChanges
from .notices import warn
from .sockets import AddedConditions, ClipEmbedsSocket, ImageEmbeds, ImageEmbedsSocket, as_image_embeds
from .vae import vae_input
from .video_vae import as_video_vae, offload

NOISE_TOOLTIP = "Noise added to the pictures first; a little gives more motion and sharper results."


class WanVideoImageToVideoEncode(WanNode):
    """Start image, end image or both, for image-to-video models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoImageToVideoEncode",
            display_name="WanVideo ImageToVideo Encode",
            category=CATEGORY,
            description="Encodes what is known of a video: its first frames, its last frames, or any frames "
            "by a mask. For Wan 2.1 and 2.2 image-to-video, Fun InP and the 5B models.",
            inputs=[*_required_inputs(), *_optional_inputs()],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        force_offload: bool = True,
        vae: object = None,
        clip_embeds: object = None,
        control_embeds: object = None,
        add_cond_latents: object = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        """Encode."""
        if add_cond_latents is not None:
            raise NotYetError("add_cond_latents", "RealisDance", "disconnect it")
        encoder = as_video_vae(vae)
        size = (inputs.pop(name) for name in ("width", "height", "num_frames"))
        geometry, said = VideoGeometry.snapped(*size, spatial_stride=encoder.spatial_stride)
        if said:
            warn(cls, "; ".join(said))
        known = _known_pictures(**inputs)
        image = known.encoded(encoder, geometry, lambda sentence: warn(cls, sentence))
        embeds = ImageEmbeds(geometry).with_input(IMAGE, image)
        if force_offload:
            offload(vae)
        if clip_embeds is not None:
            embeds = embeds.with_input(CLIP, ClipInput.of(as_clip_embeds(clip_embeds, "clip_embeds")))
        if control_embeds is not None:
            control = as_image_embeds(control_embeds, input_name="control_embeds")
            embeds = merged(cls, embeds, control, input_name="control_embeds")
        return io.NodeOutput(embeds)


def _known_pictures(
    *,
    start_image: Tensor | None = None,
    end_image: Tensor | None = None,
    temporal_mask: Tensor | None = None,
    empty_frame_pad_image: Tensor | None = None,
    extra_latents: Mapping[str, Any] | None = None,
    fun_or_fl2v_model: bool = True,
    **options: Any,
) -> KnownPictures:
    """The inputs of the node that say what is known."""
    changes = LatentChanges(
        start=options.get("start_latent_strength", 1.0),
        end=options.get("end_latent_strength", 1.0),
        exaggeration=options.get("augment_empty_frames", 0.0),
    )
    return KnownPictures(
        start_image,
        end_image,
        temporal_mask,
        empty_frame_pad_image,
        extra_latents,
        is_end_in_video=fun_or_fl2v_model,
        is_tiled=options.get("tiled_vae", False),
        noise=options.get("noise_aug_strength", 0.0),
        changes=changes,
    )


def _required_inputs() -> list[io.Input]:
    return [
        size_input("width", 832),
        size_input("height", 480),
        frames_input(),
        strength_input("noise_aug_strength", NOISE_TOOLTIP, default=0.0),
        strength_input(
            "start_latent_strength",
            "Factor on the first latent frame as the model sees it; less leaves more freedom to move.",
        ),
        strength_input(
            "end_latent_strength",
            "Factor on the last latent frame as the model sees it, also where it is grey.",
        ),
        io.Boolean.Input(
            "force_offload", default=True, tooltip="Take the VAE off the GPU when the pictures are encoded."
        ),
    ]


def _optional_inputs() -> list[io.Input]:
    return [
        vae_input(optional=True),
        io.MultiType.Input(
            "clip_embeds",
            types=[ClipEmbedsSocket, io.ClipVisionOutput],
            optional=True,
            tooltip="From WanVideo ClipVision Encode or ComfyUI's CLIP Vision Encode. Wan 2.1 models look at "
            "the picture through CLIP too; Wan 2.2 models do not.",
        ),
        io.Image.Input(
            "start_image", optional=True, tooltip="First frame of the video, or several first frames."
        ),
        io.Image.Input(
            "end_image", optional=True, tooltip="Last frame of the video, or several last frames."
        ),
        ImageEmbedsSocket.Input("control_embeds", optional=True, tooltip="Control video for Fun models."),
        io.Boolean.Input(
            "fun_or_fl2v_model",
            default=True,
            optional=True,
            tooltip="With a start and an end image. On: the end image is the last frame (models for first "
            "and last frame, Fun InP, Wan 2.2). Off: it is encoded alone behind the video, which models that "
            "know start images only follow better; its picture is left out when the video is decoded.",
        ),
        io.Mask.Input(
            "temporal_mask",
            optional=True,
            tooltip="1 where the video is known, a mask per frame; replaces the mask of start and end image.",
        ),
        io.Latent.Input(
            "extra_latents",
            optional=True,
            tooltip="Latents put in front of the video, such as reference pictures for SkyReels A2; left out "
            "when the video is decoded.",
        ),
        io.Boolean.Input(
            "tiled_vae",
            default=False,
            optional=True,
            tooltip="Encode in overlapping tiles: needs far less memory, takes longer.",
        ),
        AddedConditions.Input("add_cond_latents", optional=True, advanced=True),
        io.Float.Input(
            "augment_empty_frames",
            default=0.0,
            min=0.0,
            max=10.0,
            step=0.01,
            optional=True,
            tooltip="Exaggerates how the unknown frames differ from the first one, for more motion. "
            "Experimental.",
        ),
        io.Image.Input(
            "empty_frame_pad_image",
            optional=True,
            tooltip="Shown in unknown frames instead of grey, for SVI-shot and SVI 2.0 LoRAs.",
        ),
    ]


NODES: list[type[WanNode]] = [WanVideoImageToVideoEncode, WanVideoImageClipEncode]
