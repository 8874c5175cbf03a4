"""VACE, as a module beside the text-to-video model: a control video, or the first and the last picture."""

from __future__ import annotations

from typing import Any

from . import files, parts
from .graph import Link, Node, Workflow, node

FRAMES = 81


def _models() -> tuple[Node, ...]:
    return (
        node("module", "WanVideoVACEModelSelect", vace_model=files.VACE_MODULE),
        parts.model(files.T2V_1_3B, extra_model=Link("module")),
    )


def _vace(**given: Any) -> Node:
    return node(
        "vace",
        "WanVideoVACEEncode",
        vae=Link("vae"),
        width=Link("picture_size", 0),
        height=Link("picture_size", 1),
        num_frames=FRAMES,
        **given,
    )


def _result(name: str) -> tuple[tuple[Node, ...], ...]:
    return (
        (parts.sampler("vace", steps=50, cfg=5.0, shift=16.0),),
        (parts.decoded(), *parts.video_file(name, frames_per_second=16.0)),
    )


CONTROL = Workflow(
    "vace",
    "VACE: edges of a video, look of a picture",
    f"""
{parts.EDGES_TEXT}

Each of the two may be left out. Frames that are grey where something new shall be, with a mask, make VACE
change a part of a video.
""",
    columns=(
        (parts.text_encoder(), parts.vae()),
        parts.video_frames(FRAMES, width=832, height=480, file=parts.CONTROL_VIDEO),
        (
            parts.edges(),
            parts.size_of("frames"),
            parts.picture("reference", title="Reference picture"),
        ),
        (*_models(), parts.prompts()),
        (_vace(input_frames=Link("edges"), ref_images=Link("reference")),),
        *_result("vace"),
    ),
)

START_END = Workflow(
    "vace_start_end",
    "VACE: first and last picture",
    f"""
{parts.FIRST_AND_LAST_TEXT}

Between them the frames are grey, and the mask says that they are to be made.
""",
    columns=(
        (parts.text_encoder(), parts.vae()),
        parts.first_picture(832, 480),
        (
            *parts.last_picture(),
            node(
                "frames",
                "WanVideoVACEStartToEndFrame",
                num_frames=FRAMES,
                start_image=Link("start"),
                end_image=Link("end"),
            ),
        ),
        (*_models(), parts.prompts()),
        (_vace(input_frames=Link("frames", 0), input_masks=Link("frames", 1)),),
        *_result("vace_start_end"),
    ),
)
