"""A picture to video with Wan 2.2 5B, whose first latent frame is the picture."""

from __future__ import annotations

from . import files, parts
from .graph import Link, Workflow

WORKFLOW = Workflow(
    "ti2v_5b",
    "Wan 2.2 5B picture to video",
    f"""
{parts.PICTURE_TEXT}

121 frames at 24 per second, about 1280x704 pixels in any shape, multiples of 32. Without a link at
**extra_latents** the same model makes a video from the text alone.
""",
    columns=(
        (parts.text_encoder(), parts.vae(files.VAE_22)),
        parts.start_picture(1280, 704),
        (parts.model(files.TI2V_5B), parts.encoded("start_latent", "start"), parts.prompts()),
        (
            parts.size(
                Link("picture_size", 0), Link("picture_size", 1), 121, extra_latents=Link("start_latent")
            ),
        ),
        (parts.sampler("size", steps=50, cfg=5.0, shift=5.0),),
        (parts.decoded(), *parts.video_file("ti2v_5b", frames_per_second=24.0)),
    ),
)
