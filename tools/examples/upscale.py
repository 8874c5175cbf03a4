"""A saved video made larger and smoother, with ComfyUI's own nodes."""

from __future__ import annotations

from . import files, parts
from .graph import Link, Node, Workflow, node

VIDEO = "WanVideo_i2v_only.mp4"
FRAMES_PER_SECOND, MULTIPLIER = 16.0, 2


def _source() -> tuple[Node, ...]:
    return (
        node("video_file", "LoadVideo", file=VIDEO),
        node("frames", "GetVideoComponents", video=Link("video_file")),
        node("larger", "ImageScaleBy", image=Link("frames"), upscale_method="lanczos", scale_by=2.0),
    )


def _latent() -> tuple[Node, ...]:
    """The enlarged pictures as a latent, in parts that fit the memory."""
    return (
        node("vae", "VAELoader", vae_name=files.SEEDVR2_VAE),
        node("prepared", "SeedVR2Preprocess", resized_images=Link("larger")),
        node("latent", "VAEEncodeTiled", pixels=Link("prepared"), vae=Link("vae")),
        node("parts", "SeedVR2TemporalChunk", latent=Link("latent"), temporal_overlap=2),
    )


def _sampling() -> tuple[Node, ...]:
    return (
        node("model", "UNETLoader", unet_name=files.SEEDVR2_MODEL),
        node("conditions", "SeedVR2Conditioning", model=Link("model"), vae_conditioning=Link("parts")),
        node(
            "sampler",
            "KSampler",
            model=Link("model"),
            positive=Link("conditions", 0),
            negative=Link("conditions", 1),
            latent_image=Link("parts"),
            seed=parts.SEED,
            steps=1,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
        ),
        node("joined", "SeedVR2TemporalMerge", latents=Link("sampler"), temporal_overlap=Link("parts", 1)),
    )


def _pictures() -> tuple[Node, ...]:
    """The result as pictures in the colours of the source, with new frames between them."""
    return (
        node("decode", "VAEDecodeTiled", samples=Link("joined"), vae=Link("vae")),
        node(
            "finished",
            "SeedVR2PostProcessing",
            images=Link("decode"),
            original_resized_images=Link("larger"),
        ),
        node("film", "FrameInterpolationModelLoader", model_name=files.FILM),
        node(
            "smooth",
            "FrameInterpolate",
            interp_model=Link("film"),
            images=Link("finished"),
            multiplier=MULTIPLIER,
        ),
    )


ONLY = Workflow(
    "upscale_only",
    "Step 2 of 2: larger and smoother",
    f"""
Takes a video file, enlarges it twice with SeedVR2 and doubles its frames per second. Drag a video that
**i2v_only** saved (`output/video`) onto **Load Video**, or put it as `{VIDEO}` into ComfyUI's `input` folder.
A script may name it where it lies: `video/WanVideo_i2v_only_00001_.mp4 [output]`.

**scale_by** is the enlargement. The new video has twice the frames per second: 32 for a video with 16. For
a video with 24 set **fps** to 48.
""",
    columns=(
        _source(),
        _latent(),
        _sampling(),
        _pictures(),
        parts.video_file("upscale_only", frames_per_second=FRAMES_PER_SECOND * MULTIPLIER, pictures="smooth"),
    ),
)
