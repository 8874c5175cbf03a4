"""A control video for Fun Control models and control LoRAs."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ..wanvideo.conditioning.control import CONTROL, ControlInput
from ..wanvideo.conditioning.geometry import SPATIAL_STRIDES, VideoGeometry
from ..wanvideo.conditioning.length_fit import LENGTH_FITS, LengthFit
from ..wanvideo.conditioning.step_range import StepRange
from ..wanvideo.conditioning.timed import Timed
from ..wanvideo.errors import InputError
from ..wanvideo.families.fun_control.inputs import FUN_REFERENCE, FunReferenceInput
from .base import CATEGORY, WanNode
from .control_length import cut_to_control
from .host import io
from .inputs import step_inputs
from .sockets import ImageEmbeds, ImageEmbedsSocket, as_image_embeds
from .vae import report

EMPTY = ("", None)


def _latents_input(*, optional: bool) -> io.Latent.Input:
    return io.Latent.Input(
        "latents",
        optional=optional,
        tooltip="The control video (edges, depth, poses, ...), encoded; resized to the size of the video.",
    )


def _appended_inputs() -> list[io.Input]:
    return [
        io.Latent.Input(
            "fun_ref_image",
            optional=True,
            tooltip="A picture whose look the video takes over, encoded; for Fun Control 1.1 and 2.2.",
        ),
        io.Combo.Input(
            "length_fit",
            options=list(LENGTH_FITS),
            default=LENGTH_FITS[0],
            optional=True,
            advanced=True,
            tooltip="For a control video shorter than the video. hold: its last frame stays; loop: it begins "
            "again; trim: the video ends with it. A longer one is cut.",
        ),
    ]


class _ControlNode(WanNode):
    """A node with the inputs :func:`_appended_inputs` appends."""

    @classmethod
    def validate_inputs(cls, length_fit: object = "hold") -> bool | str:
        """Accept the empty value that graphs of the predecessor may have there."""
        if length_fit in (*LENGTH_FITS, *EMPTY) or not isinstance(length_fit, str):
            return True
        return f"length_fit: {length_fit!r} is not one of {', '.join(LENGTH_FITS)}"


class WanVideoControlEmbeds(_ControlNode):
    """A control video, and a video of its size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoControlEmbeds",
            display_name="WanVideo Control Embeds",
            category=CATEGORY,
            description="A control video for Fun Control models and control LoRAs; the video gets its size "
            "and length.",
            inputs=[
                *step_inputs("the control video"),
                _latents_input(optional=False),
                *_appended_inputs(),
            ],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        start_percent: float,
        end_percent: float,
        latents: dict[str, Any],
        fun_ref_image: dict[str, Any] | None = None,
        length_fit: LengthFit | Literal[""] | None = "hold",
    ) -> io.NodeOutput:
        """Embeds of the clip's size."""
        clip = one_video(latents, input_name="latents")
        geometry, changes = _geometry(clip)
        report(cls.shown_name(), changes)
        control = ControlInput(
            latent=Timed(clip), fit=length_fit or "hold", steps=StepRange(start_percent, end_percent)
        )
        embeds = ImageEmbeds(geometry).with_input(CONTROL, control)
        return io.NodeOutput(_with_reference(embeds, fun_ref_image))


class WanVideoAddControlEmbeds(_ControlNode):
    """A control video for embeds that have a size already."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoAddControlEmbeds",
            display_name="WanVideo Add Control Embeds",
            category=CATEGORY,
            description="Adds a control video or a reference picture to embeds, for Fun Control models.",
            inputs=[
                ImageEmbedsSocket.Input("embeds"),
                *step_inputs("the control video"),
                _latents_input(optional=True),
                *_appended_inputs(),
            ],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        embeds: object,
        start_percent: float,
        end_percent: float,
        latents: dict[str, Any] | None = None,
        fun_ref_image: dict[str, Any] | None = None,
        length_fit: LengthFit | Literal[""] | None = "hold",
    ) -> io.NodeOutput:
        """The embeds with what is connected; "trim" may shorten the video."""
        result = as_image_embeds(embeds, input_name="embeds")
        if latents is not None:
            control = ControlInput(
                latent=Timed(one_video(latents, input_name="latents")),
                fit=length_fit or "hold",
                steps=StepRange(start_percent, end_percent),
            )
            result, changes = cut_to_control(result, control)
            report(cls.shown_name(), changes)
            result = result.with_input(CONTROL, control)
        return io.NodeOutput(_with_reference(result, fun_ref_image))


def _with_reference(embeds: ImageEmbeds, reference: dict[str, Any] | None) -> ImageEmbeds:
    if reference is None:
        return embeds
    latent = one_video(reference, input_name="fun_ref_image")
    return embeds.with_input(FUN_REFERENCE, FunReferenceInput(latent=latent))


def one_video(latents: dict[str, Any], *, input_name: str) -> Tensor:
    """The latent ``[1, C, T, h, w]`` of a LATENT of one video or picture.

    Raises:
        InputError: several, or no latent of a Wan VAE.
    """
    samples = latents["samples"]
    if samples.ndim == 4:  # [C, T, h, w], or a picture [1, C, h, w]
        samples = samples.unsqueeze(2) if samples.shape[0] == 1 else samples.unsqueeze(0)
    if (
        samples.ndim != 5
        or samples.shape[0] != 1
        or samples.shape[1] not in SPATIAL_STRIDES
        or not samples.numel()
    ):
        raise InputError(
            input_name,
            f"expected the latent of one video [1, 16 or 48 channels, frames, height, width], got shape "
            f"{list(samples.shape)}; encode it with a Wan VAE",
        )
    return samples


def _geometry(clip: Tensor) -> tuple[VideoGeometry, list[str]]:
    _, channels, frames, rows, columns = clip.shape
    stride = SPATIAL_STRIDES[channels]
    return VideoGeometry.snapped(columns * stride, rows * stride, 4 * (frames - 1) + 1, spatial_stride=stride)


NODES: list[type[WanNode]] = [WanVideoControlEmbeds, WanVideoAddControlEmbeds]
