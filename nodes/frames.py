"""Pictures and frames: pick them, place them in time, give them another background."""

from __future__ import annotations

import torch
from torch import Tensor

from ..wanvideo.conditioning.background_noise import noise_background
from ..wanvideo.conditioning.frames import (
    Clip,
    control_timeline,
    first_frames,
    start_end_timeline,
    with_inpaint_mask,
)
from ..wanvideo.errors import InputError
from .base import CATEGORY, WanNode
from .host import compute_device, io, resize_images
from .notices import warn


class ExtractStartFramesForContinuations(WanNode):
    """The beginning of a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ExtractStartFramesForContinuations",
            display_name="Extract Start Frames For Continuations",
            category=CATEGORY,
            description="The first frames of a video, for example to go on from them.",
            inputs=[
                io.Image.Input("input_video_frames", tooltip="Frames of the video."),
                io.Int.Input(
                    "num_frames",
                    default=10,
                    min=1,
                    max=1024,
                    step=1,
                    tooltip="How many frames to take; a shorter video is taken whole.",
                ),
            ],
            outputs=[io.Image.Output(display_name="start_frames")],
        )

    @classmethod
    def run(cls, *, input_video_frames: Tensor, num_frames: int) -> io.NodeOutput:
        """Frames ``[F, H, W, C]``."""
        frames = first_frames(input_video_frames, num_frames)
        if len(frames) < num_frames:
            warn(
                cls, f"num_frames is {num_frames}, but the video has only {len(frames)} frames: all are taken"
            )
        return io.NodeOutput(frames)


class WanVideoVACEStartToEndFrame(WanNode):
    """A video with known first and last frames and nothing between."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoVACEStartToEndFrame",
            display_name="WanVideo VACE Start To End Frame",
            category=CATEGORY,
            description="Frames and masks for VACE: start and end pictures at their place in time, the "
            "frames between them left to the model. With control_images alone, these are the known frames.",
            inputs=[
                io.Int.Input(
                    "num_frames", default=81, min=1, max=10000, step=4, tooltip="Length of the video, 4n + 1."
                ),
                io.Float.Input(
                    "empty_frame_level",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Grey of the empty frames; VACE was trained with 0.5.",
                ),
                io.Image.Input(
                    "start_image", optional=True, tooltip="One or more frames from start_index on."
                ),
                io.Image.Input("end_image", optional=True, tooltip="One or more frames up to end_index."),
                io.Image.Input(
                    "control_images",
                    optional=True,
                    tooltip="Pose, depth or other control for the frames without start or end picture.",
                ),
                io.Mask.Input(
                    "inpaint_mask",
                    optional=True,
                    tooltip="1 where the empty frames are to be painted; everywhere by default.",
                ),
                io.Int.Input(
                    "start_index",
                    default=0,
                    min=0,
                    max=10000,
                    step=1,
                    optional=True,
                    tooltip="Frame that the first start picture becomes.",
                ),
                io.Int.Input(
                    "end_index",
                    default=-1,
                    min=-10000,
                    max=10000,
                    step=1,
                    optional=True,
                    tooltip="Frame that the last end picture becomes; negative counts from the end.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images"), io.Mask.Output(display_name="masks")],
        )

    @classmethod
    def run(
        cls,
        *,
        num_frames: int,
        empty_frame_level: float,
        inpaint_mask: Tensor | None = None,
        start_index: int = 0,
        end_index: int = -1,
        **images: Tensor | None,
    ) -> io.NodeOutput:
        """Frames ``[F, H, W, 3]`` and masks ``[F, H, W]``.

        ``images`` are start_image, end_image and control_images.
        """
        start, end, control = _same_size(*(images.get(name) for name in IMAGE_INPUTS))
        if start is None and end is None and control is not None:
            timeline = control_timeline(control, num_frames, empty_level=empty_frame_level)
        else:
            timeline = start_end_timeline(
                num_frames,
                empty_level=empty_frame_level,
                start=None if start is None else Clip(start, start_index),
                end=None if end is None else Clip(end, end_index),
                control=control,
            )
        if inpaint_mask is not None:
            timeline = with_inpaint_mask(timeline, inpaint_mask)
        if timeline.remarks:
            warn(cls, "; ".join(timeline.remarks))
        return io.NodeOutput(timeline.frames, timeline.masks)


IMAGE_INPUTS = ("start_image", "end_image", "control_images")


class DrawGaussianNoiseOnImage(WanNode):
    """Noise behind a subject."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="DrawGaussianNoiseOnImage",
            display_name="Draw Gaussian Noise On Image",
            category="KJNodes/masking",  # where graphs of this node's origin expect it
            description="Replaces the background by noise in the colours of the subject, so that nothing of "
            "the background reaches the model.",
            inputs=[
                io.Image.Input("image", tooltip="Pictures."),
                io.Mask.Input(
                    "mask", tooltip="1 on the subject, 0 on the background; one for all or one each."
                ),
                io.Combo.Input(
                    "device",
                    options=["cpu", "gpu"],
                    default="cpu",
                    optional=True,
                    tooltip="Where to draw the noise; the same seed gives other noise on another device.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    optional=True,
                    tooltip="Of the noise.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def run(cls, *, image: Tensor, mask: Tensor, device: str = "cpu", seed: int = 0) -> io.NodeOutput:
        """Pictures ``[F, H, W, C]``."""
        working_device = compute_device() if device == "gpu" else torch.device("cpu")
        result = noise_background(image, mask, seed=seed, device=working_device)
        if result.without_subject:
            frames = ", ".join(map(str, result.without_subject))
            warn(cls, f"the mask is empty in frames {frames}: their background turns black")
        return io.NodeOutput(result.images)


class WanVideoPassImagesFromSamples(WanNode):
    """Pictures that a sampler has decoded already."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoPassImagesFromSamples",
            display_name="WanVideo Pass Images From Samples",
            category=CATEGORY,
            description="Samplers that make a long video window by window (MultiTalk, InfiniteTalk) decode "
            "it themselves; this hands on their pictures.",
            inputs=[io.Latent.Input("samples", tooltip="From such a sampler.")],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The decoded pictures."),
                io.String.Output(display_name="output_path", tooltip="Where they were saved, if they were."),
            ],
        )

    @classmethod
    def run(cls, *, samples: dict[str, object]) -> io.NodeOutput:
        """Pictures ``[F, H, W, 3]`` in [0, 1], and the folder."""
        video = samples.get("video")
        if not isinstance(video, Tensor):
            raise InputError(
                "samples",
                "there are no decoded pictures in it; connect WanVideo Decode to the sampler instead",
            )
        images = video.detach().float().cpu().clamp(-1.0, 1.0) * 0.5 + 0.5
        return io.NodeOutput(images, samples.get("output_path") or "")


def _same_size(
    start: Tensor | None, end: Tensor | None, control: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Pictures stretched to the size of the first one there is."""
    given = [images for images in (start, end, control) if images is not None]
    size = given[0].shape[1:3] if given else None

    def fit(images: Tensor | None) -> Tensor | None:
        if images is None or size is None or images.shape[1:3] == size or not images.shape[0]:
            return images
        return resize_images(images, size[1], size[0], crop=False)

    return fit(start), fit(end), fit(control)


NODES: list[type[WanNode]] = [
    ExtractStartFramesForContinuations,
    WanVideoVACEStartToEndFrame,
    DrawGaussianNoiseOnImage,
    WanVideoPassImagesFromSamples,
]
