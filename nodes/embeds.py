"""Size of the video, and a look into image embeds."""

from __future__ import annotations

import logging

from ..wanvideo.conditioning.geometry import VideoGeometry
from ..wanvideo.errors import InputError, NotYetError
from .base import CATEGORY, WanNode
from .host import io, say
from .sockets import ImageEmbeds, ImageEmbedsSocket, PreviewableInput

log = logging.getLogger(__name__)


def _size(name: str, default: int) -> io.Int.Input:
    tooltip = "Pixels, a multiple of 16 (32 for the 5B)."
    return io.Int.Input(name, default=default, min=64, max=8096, step=8, tooltip=tooltip)


class WanVideoEmptyEmbeds(WanNode):
    """The size of a video that is made from text alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoEmptyEmbeds",
            display_name="WanVideo Empty Embeds",
            category=CATEGORY,
            description="Size and length of the video, for text to video.",
            inputs=[
                _size("width", 832),
                _size("height", 480),
                io.Int.Input(
                    "num_frames",
                    default=81,
                    min=1,
                    max=10000,
                    step=4,
                    tooltip="Length in frames, 4n + 1: 1 is a picture, 81 are five seconds at 16 per second.",
                ),
                ImageEmbedsSocket.Input(
                    "control_embeds", optional=True, tooltip="Control video for Fun models."
                ),
                io.Latent.Input(
                    "extra_latents", optional=True, tooltip="Latent of the first frame for Pusa models."
                ),
            ],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        width: int,
        height: int,
        num_frames: int,
        control_embeds: object = None,
        extra_latents: object = None,
    ) -> io.NodeOutput:
        """Embeds with the nearest possible size at or below the request."""
        if control_embeds is not None:
            raise NotYetError("control_embeds", "Fun control", "disconnect it")
        if extra_latents is not None:
            raise NotYetError("extra_latents", "a given first frame", "disconnect it")
        geometry, changes = VideoGeometry.snapped(width, height, num_frames)
        if changes:
            log.warning("%s: %s", cls.shown_name(), "; ".join(changes))
            say("; ".join(changes))
        return io.NodeOutput(ImageEmbeds(geometry))


class WanVideoPreviewEmbeds(WanNode):
    """What image embeds hold, as a latent and a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoPreviewEmbeds",
            display_name="WanVideo Preview Embeds",
            category=CATEGORY,
            description="The picture latents inside image embeds, to look at them with a VAE decode node.",
            inputs=[ImageEmbedsSocket.Input("embeds")],
            outputs=[
                io.Latent.Output(display_name="image_embeds"),
                io.Mask.Output(display_name="mask"),
            ],
        )

    @classmethod
    def run(cls, *, embeds: ImageEmbeds) -> io.NodeOutput:
        """Latent and mask of the first family input that has a picture."""
        for value in embeds.inputs.values():
            if isinstance(value, PreviewableInput):
                latent, mask = value.preview()
                return io.NodeOutput({"samples": latent}, mask)
        size = f"{embeds.geometry.width}x{embeds.geometry.height}, {embeds.geometry.frames} frames"
        raise InputError("embeds", f"these embeds ({size}) hold no picture; connect image to video embeds")


NODES: list[type[WanNode]] = [WanVideoEmptyEmbeds, WanVideoPreviewEmbeds]
