"""Reference pictures for Phantom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from torch import Tensor

from ....nodes.base import CATEGORY, WanNode
from ....nodes.host import io
from ....nodes.inputs import frames_input, step_inputs
from ....nodes.notices import warn
from ....nodes.sockets import ImageEmbeds, ImageEmbedsSocket, as_image_embeds
from ...conditioning.geometry import TEMPORAL_STRIDE, VideoGeometry, spatial_stride_of
from ...conditioning.step_range import StepRange
from ...errors import InputError
from .inputs import AS_WRAPPER, PHANTOM, THREE_PASSES, GuidanceForm, PhantomInput

FORMS: tuple[GuidanceForm, ...] = get_args(GuidanceForm)
MOST_REFERENCES = 4


class WanVideoPhantomEmbeds(WanNode):
    """Size of a video and the subjects that are to appear in it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoPhantomEmbeds",
            display_name="WanVideo Phantom Embeds",
            category=CATEGORY,
            description="Subjects from pictures in a new video (https://github.com/Phantom-video/Phantom). "
            "Fit each picture into the size of the video on white, then encode it.",
            inputs=[
                frames_input(
                    "Length in frames, 4n + 1. The 14B model was trained with 121 at 24 per second."
                ),
                _reference_input(1),
                io.Float.Input(
                    "phantom_cfg_scale",
                    default=5.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Guidance scale of the subjects, beside that of the text (cfg of the sampler). "
                    "It costs a third pass of the model; at 1 the subjects are in both passes of cfg.",
                ),
                *step_inputs("the subjects", prefix="phantom_"),
                *(_reference_input(number) for number in range(2, MOST_REFERENCES + 1)),
                ImageEmbedsSocket.Input(
                    "vace_embeds", optional=True, tooltip="Further conditions, such as those of VACE."
                ),
                io.Combo.Input(
                    "guidance",
                    options=list(FORMS),
                    default=THREE_PASSES,
                    optional=True,
                    advanced=True,
                    tooltip="three passes: without subjects, with them, with the prompt too, as published. "
                    "as WanVideoWrapper: the subjects are in all passes, phantom_cfg_scale has no effect, "
                    "and the video is shorter by four frames for each subject.",
                ),
            ],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
        )

    @classmethod
    def validate_inputs(cls, guidance: object = "") -> bool | str:
        """Accept the empty value that graphs of the predecessor may have after their last widget."""
        if guidance in (*FORMS, "", None) or not isinstance(guidance, str):
            return True
        return f"guidance: {guidance!r} is not one of {', '.join(FORMS)}"

    @classmethod
    def run(
        cls,
        *,
        num_frames: int,
        phantom_cfg_scale: float | Sequence[float],
        phantom_start_percent: float,
        phantom_end_percent: float,
        vace_embeds: object = None,
        guidance: GuidanceForm | None = None,
        **latents: dict[str, Tensor] | None,
    ) -> io.NodeOutput:
        """Embeds of the first picture's size."""
        references = _references(latents)
        geometry, changes = _geometry(references[0], num_frames)
        if changes:
            warn(cls, "; ".join(changes))
        phantom = PhantomInput(
            references,
            phantom_cfg_scale,
            guidance or AS_WRAPPER,  # prompts made for the predecessor do not have it
            steps=StepRange(phantom_start_percent, phantom_end_percent),
        )
        if phantom.cut_frames:
            warn(
                cls,
                "as in WanVideoWrapper phantom_cfg_scale has no effect, and the video will be "
                f"{phantom.cut_frames * TEMPORAL_STRIDE} frames shorter than num_frames; for the whole "
                f"length and for guidance by the subjects set guidance to {THREE_PASSES!r}",
            )
        others = {} if vace_embeds is None else as_image_embeds(vace_embeds, input_name="vace_embeds").inputs
        return io.NodeOutput(ImageEmbeds(geometry, others).with_input(PHANTOM, phantom))


def _reference_input(number: int) -> io.Latent.Input:
    return io.Latent.Input(
        f"phantom_latent_{number}",
        optional=number > 1,
        tooltip="An encoded picture of a subject"
        + (": the video gets its size." if number == 1 else "; of another size it is resized."),
    )


def _references(latents: dict[str, dict[str, Tensor] | None]) -> tuple[Tensor, ...]:
    """The latents ``[1, C, k, h, w]`` that are connected, in the order of their sockets."""
    found: list[Tensor] = []
    for number in range(1, MOST_REFERENCES + 1):
        name = f"phantom_latent_{number}"
        latent = latents.get(name)
        if latent is None:
            continue
        samples = latent["samples"]
        if samples.ndim != 5 or samples.shape[0] != 1:
            raise InputError(
                name,
                f"expected the latent of one picture [1, channels, 1, height, width], got a shape of "
                f"{tuple(samples.shape)}",
            )
        found.append(samples)
    return tuple(found)


def _geometry(latent: Tensor, num_frames: int) -> tuple[VideoGeometry, list[str]]:
    stride = spatial_stride_of(latent.shape[1])
    height, width = latent.shape[-2:]
    return VideoGeometry.snapped(width * stride, height * stride, num_frames, spatial_stride=stride)


NODES: list[type[WanNode]] = [WanVideoPhantomEmbeds]
