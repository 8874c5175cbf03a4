"""Pictures put at their place in time, for models that fill in the rest."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Clip:
    """Pictures and where they go.

    Args:
        images: ``[F, H, W, 3]`` in [0, 1].
        index: frame of the video that the first picture (start) or the last one (end) becomes.
    """

    images: Tensor
    index: int


@dataclass(frozen=True)
class Timeline:
    """A video with gaps.

    Args:
        frames: float32 ``[F, H, W, 3]`` in [0, 1].
        masks: float32 ``[F, H, W]``, 1 where the model is to paint, 0 where the picture is kept.
        remarks: a sentence for everything that was cut or covered.
    """

    frames: Tensor
    masks: Tensor
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Placement:
    """The part of a clip that fits, and its first frame in the video."""

    name: str
    images: Tensor
    first: int
    given: int

    @property
    def end(self) -> int:
        return self.first + self.images.shape[0]


def first_frames(video: Tensor, count: int) -> Tensor:
    """The first ``count`` frames of ``[F, H, W, C]``, or all of a shorter video; a copy in float32.

    Raises:
        InputError: the video has no frames.
    """
    if not video.shape[0]:
        raise InputError("input_video_frames", "the video has no frames")
    return video[:count].to("cpu", torch.float32, copy=True)  # a view would keep the whole video in memory


def control_timeline(control: Tensor, frames: int, *, empty_level: float) -> Timeline:
    """A video that begins with the given frames.

    Args:
        control: ``[F, H, W, 3]``; kept (mask 0), frames beyond ``frames`` are cut.
        frames: length of the video.
        empty_level: grey of the frames after the given ones, 0 to 1.

    Raises:
        InputError: ``control`` has no frames.
    """
    _check_images("control_images", control)
    video, masks = _empty(frames, control.shape[1:3], empty_level)
    given = min(frames, control.shape[0])
    video[:given] = control[:given, ..., :3]
    masks[:given] = 0.0
    return Timeline(video, masks)


def start_end_timeline(
    frames: int,
    *,
    empty_level: float,
    start: Clip | None = None,
    end: Clip | None = None,
    control: Tensor | None = None,
) -> Timeline:
    """A video whose first and last pictures are given.

    Args:
        frames: length of the video.
        empty_level: grey of the frames between, 0 to 1.
        start: kept (mask 0) from ``start.index`` on; what does not fit is cut at its end.
        end: kept up to ``end.index``, which may count from the end (-1 is the last frame); what does not
            fit is cut at its beginning. Covers ``start`` where they meet.
        control: ``[F, H, W, 3]``; frame ``i`` stands in for an empty frame ``i``, to be painted over
            (mask 1).

    Raises:
        InputError: neither start nor end, clips without frames or of different size, or an index outside
            the video.
    """
    clips = {name: clip for name, clip in (("start_image", start), ("end_image", end)) if clip}
    if not clips:
        raise InputError("start_image", "connect start_image, end_image or control_images")
    size = next(iter(clips.values())).images.shape[1:3]
    for name, images in [*((name, clip.images) for name, clip in clips.items()), ("control_images", control)]:
        if images is not None:
            _check_images(name, images, size)
    video, masks = _empty(frames, size, empty_level)
    if control is not None:
        given = min(frames, control.shape[0])
        video[:given] = control[:given, ..., :3]
    placed = _place(frames, start, end)
    for placement in placed:
        video[placement.first : placement.end] = placement.images[..., :3]
        masks[placement.first : placement.end] = 0.0
    return Timeline(video, masks, _remarks(placed))


def with_inpaint_mask(timeline: Timeline, mask: Tensor) -> Timeline:
    """The timeline with masks that leave some of the empty frames' area alone.

    Args:
        timeline: its masks are multiplied.
        mask: ``[M, h, w]`` or ``[h, w]``, 1 where the model is to paint; scaled to the video (nearest), cut,
            or repeated from its beginning when it is shorter.

    Raises:
        InputError: an empty mask.
    """
    fitted = fit_mask(mask, timeline.frames.shape[0], timeline.masks.shape[1:], input_name="inpaint_mask")
    return Timeline(timeline.frames, timeline.masks * fitted.to(timeline.masks), timeline.remarks)


def fit_mask(mask: Tensor, frames: int, size: torch.Size, *, input_name: str = "mask") -> Tensor:
    """A mask fitted to pictures.

    Args:
        mask: ``[M, h, w]`` or ``[h, w]``.
        frames: number of masks wanted: cut, or repeated from its beginning.
        size: rows and columns wanted: the nearest value is taken.
        input_name: of the node input, for the message.

    Returns:
        ``[frames, *size]``.

    Raises:
        InputError: not such a tensor, or an empty one.
    """
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or not mask.numel():
        raise InputError(input_name, f"expected masks [frames, height, width], got shape {tuple(mask.shape)}")
    if mask.shape[1:] != size:
        mask = torch.nn.functional.interpolate(mask[:, None].float(), size=size, mode="nearest-exact")[:, 0]
    return mask.repeat(ceil(frames / mask.shape[0]), 1, 1)[:frames]


def _empty(frames: int, size: torch.Size, level: float) -> tuple[Tensor, Tensor]:
    return torch.full((frames, *size, 3), level), torch.ones(frames, *size)


def _place(frames: int, start: Clip | None, end: Clip | None) -> list[_Placement]:
    placed: list[_Placement] = []
    if start is not None:
        first = _frame_index("start_index", start.index, frames)
        images = start.images[: frames - first]
        placed.append(_Placement("start_image", images, first, start.images.shape[0]))
    if end is not None:
        last = _frame_index("end_index", end.index, frames)
        images = end.images[-(last + 1) :]
        placed.append(_Placement("end_image", images, last + 1 - images.shape[0], end.images.shape[0]))
    return placed


def _frame_index(name: str, index: int, frames: int) -> int:
    if not -frames <= index < frames:
        raise InputError(
            name, f"{index} lies outside the video; with {frames} frames use {-frames} to {frames - 1}"
        )
    return index % frames


def _remarks(placed: list[_Placement]) -> tuple[str, ...]:
    remarks = [
        f"{clip.name}: {clip.given} frames given, the {clip.images.shape[0]} that fit are used"
        for clip in placed
        if clip.images.shape[0] < clip.given
    ]
    if len(placed) == 2:
        start, end = placed
        covered = min(start.end, end.end) - max(start.first, end.first)
        if covered > 0:
            remarks.append(f"end_image covers {covered} frames of start_image")
    return tuple(remarks)


def _check_images(name: str, images: Tensor, size: torch.Size | None = None) -> None:
    if images.ndim != 4 or images.shape[-1] < 3 or not images.numel():
        raise InputError(
            name, f"expected pictures [frames, height, width, 3], got shape {tuple(images.shape)}"
        )
    if size is not None and images.shape[1:3] != size:
        raise InputError(
            name, f"{images.shape[2]}x{images.shape[1]} pixels, expected {size[1]}x{size[0]}; resize it"
        )
