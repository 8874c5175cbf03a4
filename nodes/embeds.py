"""Size of the video, and what is done with image embeds as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ..wanvideo.conditioning.clean_frames import CLEAN_FRAMES, CleanFramesInput, GivenLatent
from ..wanvideo.conditioning.control import CONTROL
from ..wanvideo.conditioning.geometry import VideoGeometry
from ..wanvideo.errors import InputError
from .base import CATEGORY, WanNode
from .control_length import cut_to_control
from .host import io
from .inputs import frames_input, size_input
from .notices import warn
from .sockets import ImageEmbeds, ImageEmbedsSocket, PreviewableInput, as_image_embeds


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
                size_input("width", 832),
                size_input("height", 480),
                frames_input(),
                ImageEmbedsSocket.Input(
                    "control_embeds", optional=True, tooltip="Control video for Fun models."
                ),
                io.Latent.Input(
                    "extra_latents",
                    optional=True,
                    tooltip="Latent of the first frame, which stays as it is: for Wan 2.2 5B and Pusa.",
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
        extra_latents: dict[str, Tensor] | None = None,
    ) -> io.NodeOutput:
        """Embeds with the nearest possible size at or below the request."""
        geometry, changes = VideoGeometry.snapped(width, height, num_frames)
        if changes:
            warn(cls, "; ".join(changes))
        embeds = ImageEmbeds(geometry)
        if extra_latents is not None:
            embeds = with_clean_frames(embeds, latent_in_time(extra_latents, "extra_latents"), 0)
        if control_embeds is not None:
            control = as_image_embeds(control_embeds, input_name="control_embeds")
            embeds = merged(cls, embeds, control, input_name="control_embeds")
        return io.NodeOutput(embeds)


class WanVideoAddExtraLatent(WanNode):
    """Latent frames that are given."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoAddExtraLatent",
            display_name="WanVideo Add Extra Latent",
            category=CATEGORY,
            description="Puts latent frames into the video that stay as they are: a start or end frame, or "
            "the end of another video to go on from. For Wan 2.2 5B, Pusa and models trained with diffusion "
            "forcing; several can be chained.",
            inputs=[
                ImageEmbedsSocket.Input("embeds"),
                io.Latent.Input("extra_latents"),
                io.Int.Input(
                    "latent_index",
                    default=0,
                    min=-1000,
                    max=1000,
                    step=1,
                    tooltip="Latent frame at which they begin; negative counts from the end, -1 is the last.",
                ),
            ],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
        )

    @classmethod
    def run(cls, *, embeds: object, extra_latents: dict[str, Tensor], latent_index: int) -> io.NodeOutput:
        """The embeds with the frames."""
        latent = latent_in_time(extra_latents, "extra_latents")
        return io.NodeOutput(
            with_clean_frames(as_image_embeds(embeds, input_name="embeds"), latent, latent_index)
        )


class WanVideoCombineEmbeds(WanNode):
    """Two sets of embeds as one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoCombineEmbeds",
            display_name="WanVideo Combine Embeds",
            category=CATEGORY,
            description="Everything two sets of image embeds carry, in the size of the first one.",
            inputs=[ImageEmbedsSocket.Input("embeds_1"), ImageEmbedsSocket.Input("embeds_2")],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
            is_experimental=True,
        )

    @classmethod
    def run(cls, *, embeds_1: object, embeds_2: object) -> io.NodeOutput:
        """The union of their inputs."""
        first = as_image_embeds(embeds_1, input_name="embeds_1")
        second = as_image_embeds(embeds_2, input_name="embeds_2")
        return io.NodeOutput(merged(cls, first, second, input_name="embeds_2"))


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
        raise InputError(
            "embeds",
            f"these embeds ({_said(embeds.geometry)}) hold no picture; connect image to video embeds",
        )


def latent_in_time(samples: Mapping[str, Any], input_name: str) -> Tensor:
    """The latent of a LATENT as ``[1, C, T, h, w]``; the members of a batch come one after the other.

    Raises:
        InputError: not the latent of a video.
    """
    latent = samples["samples"]
    if not isinstance(latent, Tensor) or latent.ndim != 5:
        found = tuple(latent.shape) if isinstance(latent, Tensor) else type(latent).__name__
        raise InputError(input_name, f"expected a video latent [B, C, T, H, W], got {found}")
    return torch.cat(latent.split(1), dim=2)


def with_clean_frames(embeds: ImageEmbeds, latent: Tensor, index: int) -> ImageEmbeds:
    """Embeds with one more latent that stays as it is, from latent frame ``index`` on."""
    present = embeds.inputs.get(CLEAN_FRAMES)
    if isinstance(present, CleanFramesInput):
        return embeds.with_input(CLEAN_FRAMES, present.with_latent(latent, index))
    return embeds.with_input(CLEAN_FRAMES, CleanFramesInput(given=(GivenLatent(latent, index),)))


def merged(node: type[WanNode], embeds: ImageEmbeds, other: ImageEmbeds, *, input_name: str) -> ImageEmbeds:
    """``embeds`` with the inputs of ``other``; another size or length is said, and a cut to a control video.

    Args:
        node: that says it.
        embeds: they have the size.
        other: what is added.
        input_name: where ``other`` is connected.

    Raises:
        InputError: both carry an input of one name, and the two are not equal.
    """
    embeds, changes = cut_to_control(embeds, other.inputs.get(CONTROL))
    if changes:
        warn(node, "; ".join(changes))
    if _shape(other.geometry) != _shape(embeds.geometry):
        warn(
            node,
            f"{input_name} were made for {_said(other.geometry)}; the video has {_said(embeds.geometry)}, "
            "and what they carry is fitted to that",
        )
    for name, value in other.inputs.items():
        present = embeds.inputs.get(name)
        if present is None:
            embeds = embeds.with_input(name, value)
        elif not are_equal(present, value):
            raise InputError(
                input_name, f"both sets of embeds carry an input for {name}; a video can have one of them"
            )
    return embeds


def are_equal(first: object, second: object) -> bool:
    """Whether two inputs hold the same values; tensors in them are compared by value."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(are_equal, first, second))
    if is_dataclass(first):
        return all(are_equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))
    return bool(first == second)


def _shape(geometry: VideoGeometry) -> tuple[int, int, int]:
    return geometry.width, geometry.height, geometry.frames


def _said(geometry: VideoGeometry) -> str:
    return f"{geometry.width}x{geometry.height}, {geometry.frames} frames"


NODES: list[type[WanNode]] = [
    WanVideoEmptyEmbeds,
    WanVideoAddExtraLatent,
    WanVideoCombineEmbeds,
    WanVideoPreviewEmbeds,
]
