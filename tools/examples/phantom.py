"""A subject from a picture in a new video, with Phantom."""

from __future__ import annotations

from . import files, parts
from .graph import Link, Workflow, node

PROMPT = (
    "A girl with big yellow hair and a pink dress, a crayon drawing, walks along a beach at sunset and looks "
    "into the camera."
)

WORKFLOW = Workflow(
    "phantom",
    "Phantom: a subject in a new video",
    """
The picture shows the subject, best on a plain background; it is fitted into the size of the video on white,
which is how the model was taught. Up to four subjects have sockets: load, fit and encode each as the first
one. Describe each subject and what it does.

**cfg** is the strength of the text, **phantom_cfg_scale** that of the subject.
""",
    columns=(
        (parts.text_encoder(), parts.vae()),
        (
            parts.picture(title="Subject"),
            node(
                "subject",
                "ResizeAndPadImage",
                title=parts.SIZE_TITLE,
                image=Link("picture"),
                target_width=832,
                target_height=480,
                padding_color="white",
                interpolation="lanczos",
            ),
            parts.encoded("subject_latent", "subject"),
        ),
        (
            parts.model(files.PHANTOM),
            parts.prompts(PROMPT),
            node(
                "subjects",
                "WanVideoPhantomEmbeds",
                phantom_latent_1=Link("subject_latent"),
                num_frames=81,
                phantom_cfg_scale=5.0,
            ),
        ),
        (parts.sampler("subjects", steps=50, cfg=7.5, shift=5.0),),
        (parts.decoded(), *parts.video_file("phantom", frames_per_second=16.0)),
    ),
)
