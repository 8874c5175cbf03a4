"""A picture to video with the two models of Wan 2.2."""

from __future__ import annotations

from typing import Any

from . import files, parts
from .graph import Link, Node, Workflow, node

FRAMES = 81
STEPS_TEXT = """
The high noise model makes the first 5 of 20 steps with CFG 3.5, the low noise model the other 15 with CFG
1.0, which takes half the time. The latent goes from one sampler to the other without new noise. To change
the share, set **end_step** of the first and **start_step** of the second to the same number.
"""


def _columns(name: str, *after_decoding: Node, **given: Any) -> tuple[tuple[Node, ...], ...]:
    """From the picture to the file; ``given`` goes to the node that takes the picture."""
    pictures = (parts.decoded(), *after_decoding)
    return (
        (parts.text_encoder(), parts.vae()),
        parts.start_picture(832, 480),
        (*parts.expert_models(files.I2V_A14B), parts.prompts()),
        (parts.picture_to_video(frames=FRAMES, **given),),
        *parts.expert_samplers("embeds", steps=20, high_steps=5, cfg=(3.5, 1.0), shift=8.0),
        pictures,
        parts.video_file(name, frames_per_second=16.0, pictures=pictures[-1].name),
    )


PICTURE = Workflow(
    "i2v_wan22",
    "Wan 2.2 picture to video",
    parts.PICTURE_TEXT + "\n" + STEPS_TEXT,
    columns=_columns("i2v_wan22"),
)

LOOP = Workflow(
    "i2v_wan22_loop",
    "Wan 2.2 picture to video, as a loop",
    f"""
The picture is the first and the last frame, so that the video ends where it begins. The last frame is left
out of the file: played again and again, no frame is shown twice.

{parts.PICTURE_TEXT}
{STEPS_TEXT}""",
    columns=_columns(
        "i2v_wan22_loop",
        node(
            "loop",
            "ImageFromBatch",
            title="Leave out the last frame",
            image=Link("decode"),
            batch_index=0,
            length=FRAMES - 1,
        ),
        end_image=Link("start"),
        fun_or_fl2v_model=True,
    ),
)

ONLY = Workflow(
    "i2v_only",
    "Step 1 of 2: picture to video",
    f"""
Makes the video in the size the model is made for and saves it. Make some, keep the best, and give it to
**upscale_only**, which makes it larger and smoother.

{parts.PICTURE_TEXT}
{STEPS_TEXT}""",
    columns=_columns("i2v_only"),
)
