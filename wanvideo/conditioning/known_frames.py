"""Start and end pictures of a video, and the mask that says which frames are known.

Layout of the mask in Wan 2.1 (``wan/image2video.py``, ``wan/first_last_frame2video.py``): the pixel frames of
a latent frame are its four channels; the first latent frame has one pixel frame, which stands for all four.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from .image import MASK_CHANNELS

GREY = 0.5  # of [0, 1]: zero of the VAE's [-1, 1], which unknown frames had in training
KNOWN = 0.5  # a frame whose mean mask is below this is unknown


@dataclass(frozen=True)
class KnownFrames:
    """Pictures at both ends of a video.

    Args:
        frames: of the video, ``4n + 1``.
        start: first frames ``[k, H, W, 3]``.
        end: last frames ``[k, H, W, 3]``.
        is_last_alone: the very last picture comes behind the frames of the video, as one more.
    """

    frames: int
    start: Tensor | None = None
    end: Tensor | None = None
    is_last_alone: bool = False

    @property
    def total(self) -> int:
        """Pictures in all."""
        return self.frames + int(self.is_last_alone)

    @property
    def start_count(self) -> int:
        """Known pictures at the start."""
        return 0 if self.start is None else self.start.shape[0]

    @property
    def end_count(self) -> int:
        """Known pictures at the end."""
        return 0 if self.end is None else self.end.shape[0]

    def cut(self) -> tuple[KnownFrames, list[str]]:
        """Itself without the pictures the video has no room for, and a sentence per cut.

        Raises:
            InputError: there is no room for both a start and an end picture.
        """
        start, end, said = self.start, self.end, list[str]()
        room = self.total - min(1, self.start_count)
        if end is not None and room == 0:
            raise InputError(
                "end_image", f"a video of {self.frames} frame has no room for both a start and an end image"
            )
        if end is not None and end.shape[0] > room:
            said.append(f"end_image has {end.shape[0]} pictures: the last {room} are used")
            end = end[-room:]
        room = self.total - (0 if end is None else end.shape[0])
        if start is not None and start.shape[0] > room:
            said.append(f"start_image has {start.shape[0]} pictures: the first {room} are used")
            start = start[:room]
        return replace(self, start=start, end=end), said

    def changed(self, change: Callable[[Tensor], Tensor]) -> KnownFrames:
        """Itself with ``change`` applied to the pictures of either end."""
        start, end = (None if images is None else change(images) for images in (self.start, self.end))
        return replace(self, start=start, end=end)

    def mask(self, size: tuple[int, int]) -> Tensor:
        """``[total, h, w]``, 1 on the given pictures."""
        mask = torch.zeros(self.total, *size)
        mask[: self.start_count] = 1.0
        mask[self.total - self.end_count :] = 1.0
        return mask

    def video(self, size: tuple[int, int], *, mask: Tensor, padding: Tensor | None = None) -> Tensor:
        """The pictures ``[total, H, W, 3]`` in [0, 1].

        Args:
            size: H and W of the pictures.
            mask: ``[total, h, w]``.
            padding: ``[k, H, W, 3]`` shown, each at its own place and the last one from there on, in frames
                that are neither given nor known by the mask; grey without it.
        """
        video = torch.full((self.total, *size, 3), GREY)
        if padding is not None:
            empty = (mask.mean(dim=(1, 2)) < KNOWN).nonzero().flatten()
            video[empty] = padding[empty.clamp(max=padding.shape[0] - 1)].to(video)
        if self.start is not None:
            video[: self.start_count] = self.start.to(video)
        if self.end is not None:
            video[self.total - self.end_count :] = self.end.to(video)
        return video


def fitted_mask(mask: Tensor, frames: int, size: tuple[int, int]) -> Tensor:
    """A mask of pictures ``[M, H, W]`` or ``[H, W]`` as ``[frames, h, w]``; missing frames are unknown.

    Raises:
        InputError: another number of axes.
    """
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3:
        raise InputError("temporal_mask", f"expected a mask [F, H, W], got a shape of {tuple(mask.shape)}")
    mask = functional.interpolate(mask[:frames, None].float(), size=size, mode="nearest")[:, 0]
    return functional.pad(mask, (0, 0, 0, 0, 0, frames - mask.shape[0])).cpu()


def mask_channels(mask: Tensor, *, is_last_alone: bool = False) -> Tensor:
    """The mask ``[F, h, w]`` of pixel frames as channels ``[1, 4, T, h, w]``.

    Args:
        mask: of ``4n + 1`` frames, and one more for a last picture that is a latent frame of its own.
        is_last_alone: whether there is one.
    """
    parts = [mask[:1].expand(MASK_CHANNELS, -1, -1), mask[1 : -1 if is_last_alone else None]]
    if is_last_alone:
        parts.append(mask[-1:].expand(MASK_CHANNELS, -1, -1))
    return torch.cat(parts).reshape(-1, MASK_CHANNELS, *mask.shape[1:]).movedim(1, 0)[None]


def exaggerated(latent: Tensor, mask: Tensor, amount: float) -> Tensor:
    """Unknown frames with their difference to the first frame times ``1 + amount``.

    Args:
        latent: ``[1, C, T, h, w]``.
        mask: ``[1, 4, T, h, w]``; the first pixel frame of a latent frame says whether it is known.
        amount: 0 changes nothing.
    """
    is_empty = mask[0, 0].mean(dim=(-2, -1)) < KNOWN
    factors = 1.0 + amount * is_empty.to(latent)
    return latent[:, :, :1] + (latent - latent[:, :, :1]) * factors.view(1, 1, -1, 1, 1)
