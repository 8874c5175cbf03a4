"""A picture to video along the camera move of another video, with Uni3C."""

from __future__ import annotations

from . import files, parts
from .graph import Link, Workflow, node

RENDER_VIDEO = "render.mp4"

WORKFLOW = Workflow(
    "uni3c",
    "Uni3C: the camera move of a video",
    f"""
{parts.PICTURE_TEXT}

Put a video as `{RENDER_VIDEO}` into ComfyUI's `input` folder, or choose another one: best a point cloud of
the picture, rendered while the camera moves; any video with the wanted camera move does too. It is scaled to
the size of the picture.

**strength** is how much the move counts; end it before the last steps (**end_percent**) if the render shows
through.
""",
    columns=(
        (parts.text_encoder(), parts.clip(), parts.vae()),
        parts.start_picture(832, 480),
        parts.video_frames(
            81, width=Link("picture_size", 0), height=Link("picture_size", 1), file=RENDER_VIDEO
        ),
        (
            parts.encoded("render_latent", "frames", title="Render latent"),
            node("controlnet", "WanVideoUni3C_ControlnetLoader", model=files.UNI3C),
            node(
                "camera",
                "WanVideoUni3C_embeds",
                controlnet=Link("controlnet"),
                render_latent=Link("render_latent"),
            ),
        ),
        (parts.model(files.I2V_480P), parts.clip_picture("start"), parts.prompts()),
        (parts.picture_to_video(frames=81, clip_embeds=Link("clip_picture")),),
        (parts.sampler("embeds", steps=40, cfg=5.0, shift=3.0, uni3c_embeds=Link("camera")),),
        (parts.decoded(), *parts.video_file("uni3c", frames_per_second=16.0)),
    ),
)
