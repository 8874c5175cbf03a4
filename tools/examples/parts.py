"""The parts of which the workflows are made: loaders, pictures, samplers, output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import files
from .graph import Link, ModelFile, Node, Value, node

NEGATIVE = json.loads((Path(__file__).parent / "texts.json").read_text(encoding="utf-8"))["negative"]
SEED = 1057359483639287
EXAMPLE_PICTURE = "example.png"  # comes with ComfyUI
SIZE_TITLE = "Size of the video"
CONTROL_VIDEO = "control.mp4"
PROMPT = (
    "A crayon drawing comes alive: a girl with big yellow hair and a pink dress waves with both arms, her "
    "hair and the clouds move in the wind."
)

PICTURE_TEXT = (
    "Choose your picture in **Load Image** and set **Size of the video**; the picture is cut to that shape. "
    "Describe the picture and what happens in it."
)
FIRST_AND_LAST_TEXT = (
    "The video begins with the first picture and ends with the last one. Set the size in **Size of the "
    "video**; both pictures are cut to that shape."
)
EDGES_TEXT = (
    f"Put a video as `{CONTROL_VIDEO}` into ComfyUI's `input` folder, or choose another one. Its edges say "
    "where things are, the reference picture what they look like. Other control pictures (depth, pose) may "
    "come from any node."
)


def model(file: ModelFile, name: str = "model", *, title: str = "", **given: Any) -> Node:
    """A transformer; 8 bit files are read as they are."""
    return node(name, "WanVideoModelLoader", title=title, model=file, **given)


def text_encoder() -> Node:
    """UMT5."""
    return node("text_encoder", "LoadWanVideoT5TextEncoder", model_name=files.TEXT_ENCODER)


def vae(file: ModelFile = files.VAE_21) -> Node:
    """The VAE."""
    return node("vae", "WanVideoVAELoader", model_name=file)


def prompts(positive: str = PROMPT) -> Node:
    """Both prompts; the negative one is the model's own."""
    return node(
        "text",
        "WanVideoTextEncode",
        t5=Link("text_encoder"),
        positive_prompt=positive,
        negative_prompt=NEGATIVE,
        box_width=380,
    )


def size(width: Value, height: Value, frames: int, **given: Any) -> Node:
    """A video of this size, without a picture to go on from."""
    return node("size", "WanVideoEmptyEmbeds", width=width, height=height, num_frames=frames, **given)


def picture(name: str = "picture", *, title: str = "") -> Node:
    """A picture of the input folder."""
    return node(name, "LoadImage", title=title, image=EXAMPLE_PICTURE)


def scaled(name: str, source: str, *, width: Value, height: Value, title: str = "") -> Node:
    """A picture, or the pictures of a video, cut and scaled to a size."""
    return node(
        name,
        "ImageScale",
        title=title,
        image=Link(source),
        upscale_method="lanczos",
        width=width,
        height=height,
        crop="center",
    )


def scaled_alike(name: str, source: str) -> Node:
    """A picture cut and scaled to the size that "picture_size" tells."""
    return scaled(name, source, width=Link("picture_size", 0), height=Link("picture_size", 1))


def size_of(source: str) -> Node:
    """The size of a picture, so that it is set in one place only: outputs 0 and 1 of "picture_size"."""
    return node("picture_size", "GetImageSize", image=Link(source))


def start_picture(width: int, height: int) -> tuple[Node, ...]:
    """The picture a video begins with, as "start"."""
    return (
        picture(),
        scaled("start", "picture", width=width, height=height, title=SIZE_TITLE),
        size_of("start"),
    )


def first_picture(width: int, height: int) -> tuple[Node, ...]:
    """The first of two pictures, as "start"; it has the size of the video."""
    return (
        picture("first_picture", title="First picture"),
        scaled("start", "first_picture", width=width, height=height, title=SIZE_TITLE),
        size_of("start"),
    )


def last_picture() -> tuple[Node, ...]:
    """The second of two pictures, as "end"."""
    return (picture("last_picture", title="Last picture"), scaled_alike("end", "last_picture"))


def edges() -> Node:
    """The edges in "frames"."""
    return node("edges", "Canny", image=Link("frames"), low_threshold=0.1, high_threshold=0.3)


def video_frames(frames: int, *, width: Value, height: Value, file: str) -> tuple[Node, ...]:
    """The first frames of a video file at a size, as "frames"."""
    title = "" if isinstance(width, Link) else SIZE_TITLE
    return (
        node("video_file", "LoadVideo", file=file),
        node("video_frames", "GetVideoComponents", video=Link("video_file")),
        node("first_frames", "ImageFromBatch", image=Link("video_frames"), batch_index=0, length=frames),
        scaled("frames", "first_frames", width=width, height=height, title=title),
    )


def encoded(name: str, source: str, *, title: str = "") -> Node:
    """Pictures as a latent."""
    return node(name, "WanVideoEncode", title=title, vae=Link("vae"), image=Link(source))


def clip() -> Node:
    """The CLIP vision model of Wan 2.1."""
    return node("clip", "LoadWanVideoClipTextEncoder", model_name=files.CLIP_VISION)


def clip_picture(source: str, **given: Any) -> Node:
    """What CLIP sees in a picture."""
    return node(
        "clip_picture", "WanVideoClipVisionEncode", clip_vision=Link("clip"), image_1=Link(source), **given
    )


def picture_to_video(*, frames: int, fun_or_fl2v_model: bool = False, **given: Any) -> Node:
    """What a model that goes on from the picture "start" gets; the size is that of the picture."""
    return node(
        "embeds",
        "WanVideoImageToVideoEncode",
        vae=Link("vae"),
        start_image=Link("start"),
        width=Link("picture_size", 0),
        height=Link("picture_size", 1),
        num_frames=frames,
        fun_or_fl2v_model=fun_or_fl2v_model,
        **given,
    )


def sampler(
    embeds: str,
    *,
    steps: int,
    cfg: float,
    shift: float,
    name: str = "sampler",
    model: str = "model",
    title: str = "",
    **given: Any,
) -> Node:
    """A sampling run."""
    return node(
        name,
        "WanVideoSampler",
        title=title,
        model=Link(model),
        image_embeds=Link(embeds),
        text_embeds=Link("text"),
        steps=steps,
        cfg=cfg,
        shift=shift,
        seed=SEED,
        **given,
    )


def expert_models(pair: tuple[ModelFile, ModelFile]) -> tuple[Node, ...]:
    """The models for high and for low noise."""
    high, low = pair
    return (
        model(high, "model_high", title="High noise model"),
        model(low, "model_low", title="Low noise model"),
    )


def expert_samplers(
    embeds: str, *, steps: int, high_steps: int, cfg: tuple[float, float], shift: float
) -> tuple[tuple[Node, ...], ...]:
    """Two columns: the high noise model makes the first steps, the low noise model the others.

    The latent is handed over as it is, without new noise, and the solver goes on with its history.
    """
    first = sampler(
        embeds,
        name="sampler_high",
        model="model_high",
        title="First steps: high noise",
        steps=steps,
        cfg=cfg[0],
        shift=shift,
        end_step=high_steps,
        solver_history="continue",
    )
    second = sampler(
        embeds,
        name="sampler",
        model="model_low",
        title="Other steps: low noise",
        steps=steps,
        cfg=cfg[1],
        shift=shift,
        samples=Link("sampler_high"),
        start_step=high_steps,
        solver_history="continue",
    )
    return (first,), (second,)


def decoded() -> Node:
    """The latent of "sampler" as pictures."""
    return node("decode", "WanVideoDecode", vae=Link("vae"), samples=Link("sampler"))


def video_file(name: str, *, frames_per_second: float, pictures: str = "decode") -> tuple[Node, ...]:
    """Pictures as a video file ``video/WanVideo_<name>`` in the output folder."""
    return (
        node("video", "CreateVideo", images=Link(pictures), fps=frames_per_second),
        node(
            "save",
            "SaveVideo",
            video=Link("video"),
            filename_prefix=f"video/WanVideo_{name}",
            format="mp4",
            box_width=420,
        ),
    )
