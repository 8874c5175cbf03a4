"""A picture, or a first and a last one, to video with Wan 2.1, which sees them through CLIP too."""

from __future__ import annotations

from . import files, parts
from .graph import Link, Workflow

PICTURE = Workflow(
    "i2v_wan21",
    "Wan 2.1 picture to video, 480P",
    f"""
{parts.PICTURE_TEXT}

The 480P model is made for about 832x480 pixels in any shape, the 720P model for 1280x720 with shift 5.
""",
    columns=(
        (parts.text_encoder(), parts.clip(), parts.vae()),
        parts.start_picture(832, 480),
        (parts.model(files.I2V_480P), parts.clip_picture("start"), parts.prompts()),
        (parts.picture_to_video(frames=81, clip_embeds=Link("clip_picture")),),
        (parts.sampler("embeds", steps=40, cfg=5.0, shift=3.0),),
        (parts.decoded(), *parts.video_file("i2v_wan21", frames_per_second=16.0)),
    ),
)

FIRST_AND_LAST = Workflow(
    "flf2v_wan21",
    "Wan 2.1 first and last picture to video",
    f"""
{parts.FIRST_AND_LAST_TEXT}

CLIP sees both pictures: **combine_embeds** is "concat". **fun_or_fl2v_model** tells that the model takes
the last picture as the last frame.
""",
    columns=(
        (parts.text_encoder(), parts.clip(), parts.vae()),
        parts.first_picture(1280, 720),
        (*parts.last_picture(), parts.model(files.FLF2V_720P)),
        (
            parts.clip_picture("start", image_2=Link("end"), combine_embeds="concat"),
            parts.prompts(),
        ),
        (
            parts.picture_to_video(
                frames=81, end_image=Link("end"), clip_embeds=Link("clip_picture"), fun_or_fl2v_model=True
            ),
        ),
        (parts.sampler("embeds", steps=50, cfg=5.5, shift=16.0),),
        (parts.decoded(), *parts.video_file("flf2v_wan21", frames_per_second=16.0)),
    ),
)
