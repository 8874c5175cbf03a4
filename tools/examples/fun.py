"""The Fun models: a first and a last picture, a control video, a camera that moves."""

from __future__ import annotations

from . import files, parts
from .graph import Link, Workflow, node

INPAINT = Workflow(
    "fun_inp",
    "Wan 2.1 Fun InP: first and last picture",
    f"""
{parts.FIRST_AND_LAST_TEXT}

Without a link at **end_image** the video ends as it likes.
""",
    columns=(
        (parts.text_encoder(), parts.clip(), parts.vae()),
        parts.first_picture(832, 480),
        (*parts.last_picture(), parts.model(files.FUN_INP)),
        (parts.clip_picture("start"), parts.prompts()),
        (
            parts.picture_to_video(
                frames=81, end_image=Link("end"), clip_embeds=Link("clip_picture"), fun_or_fl2v_model=True
            ),
        ),
        (parts.sampler("embeds", steps=50, cfg=6.0, shift=3.0),),
        (parts.decoded(), *parts.video_file("fun_inp", frames_per_second=16.0)),
    ),
)

CONTROL = Workflow(
    "fun_control",
    "Wan 2.2 Fun Control: edges of a video, look of a picture",
    f"""
{parts.EDGES_TEXT}

With 50 steps and shift 5 the noise falls below the boundary of 0.9 after 18 steps: there the low noise model
goes on.
""",
    columns=(
        (parts.text_encoder(), parts.vae()),
        parts.video_frames(81, width=832, height=480, file=parts.CONTROL_VIDEO),
        (
            parts.edges(),
            parts.size_of("frames"),
            parts.picture("reference_picture", title="Reference picture"),
            parts.scaled_alike("reference", "reference_picture"),
        ),
        (
            parts.encoded("edges_latent", "edges", title="Control latent"),
            parts.encoded("reference_latent", "reference", title="Reference latent"),
            parts.prompts(),
        ),
        (
            *parts.expert_models(files.FUN_CONTROL_A14B),
            node(
                "control",
                "WanVideoControlEmbeds",
                latents=Link("edges_latent"),
                fun_ref_image=Link("reference_latent"),
            ),
            parts.size(Link("picture_size", 0), Link("picture_size", 1), 81, control_embeds=Link("control")),
        ),
        *parts.expert_samplers("size", steps=50, high_steps=18, cfg=(6.0, 6.0), shift=5.0),
        (parts.decoded(), *parts.video_file("fun_control", frames_per_second=16.0)),
    ),
)

CAMERA = Workflow(
    "fun_camera",
    "Wan 2.1 Fun Camera: a camera that moves",
    f"""
{parts.PICTURE_TEXT}

Choose the move in **WanCameraEmbedding**; **speed** is how far it goes, **length** is the number of frames of
the video.
""",
    columns=(
        (parts.text_encoder(), parts.clip(), parts.vae()),
        parts.start_picture(832, 480),
        (
            node(
                "move",
                "WanCameraEmbedding",
                camera_pose="Zoom In",
                width=Link("picture_size", 0),
                height=Link("picture_size", 1),
                length=81,
            ),
            node(
                "camera",
                "WanVideoFunCameraEmbeds",
                poses=Link("move"),
                width=Link("picture_size", 0),
                height=Link("picture_size", 1),
            ),
            parts.clip_picture("start"),
        ),
        (parts.model(files.FUN_CAMERA), parts.prompts()),
        (
            parts.picture_to_video(
                frames=81,
                clip_embeds=Link("clip_picture"),
                control_embeds=Link("camera"),
                fun_or_fl2v_model=True,
            ),
        ),
        (parts.sampler("embeds", steps=50, cfg=6.0, shift=3.0),),
        (parts.decoded(), *parts.video_file("fun_camera", frames_per_second=16.0)),
    ),
)
