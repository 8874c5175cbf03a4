"""Pictures and masks as VACE reads them.

Source: https://github.com/ali-vilab/VACE (arXiv:2503.07598), ``vace/models/wan/wan_vace.py`` and
``vace/models/utils/preprocessor.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ...conditioning.frames import fit_mask
from ...conditioning.geometry import TEMPORAL_STRIDE
from ...errors import InputError
from .inputs import MASK_CELL

GREY = 0.5  # of pictures in [0, 1]: nothing is known


def padded_frames(images: Tensor | None, frames: int, size: tuple[int, int]) -> Tensor:
    """A video of a length: frames beyond it are cut, missing ones are grey.

    Args:
        images: ``[F, *size, 3]`` in [0, 1]; ``None`` is none.
        frames: wanted.
        size: rows and columns.
    """
    video = torch.full((frames, *size, 3), GREY)
    if images is not None:
        video[: images.shape[0]] = images[:frames]
    return video


def padded_masks(masks: Tensor | None, frames: int, size: tuple[int, int], *, given: int) -> Tensor:
    """A mask for every frame, 1 where it is made anew.

    A single mask serves all frames; of several each serves its own, and frames without one are made anew.

    Args:
        masks: ``[M, h, w]`` or ``[h, w]``, scaled to ``size`` by taking the nearest value; ``None`` is 1
            everywhere.
        frames: wanted; masks beyond are cut.
        size: rows and columns.
        given: frames that have a picture. The others are made anew, unless no frame has one.

    Raises:
        InputError: not such a tensor, or an empty one.
    """
    fitted = torch.ones(frames, *size)
    if masks is None:
        return fitted
    count = 1 if masks.ndim == 2 else masks.shape[0]
    scaled = fit_mask(masks, count, torch.Size(size), input_name="input_masks")[:frames].float()
    fitted[: frames if count == 1 else count] = scaled
    if given:
        fitted[given:] = 1.0
    return fitted


def inactive_part(video: Tensor, masks: Tensor) -> Tensor:
    """What is kept of a video ``[F, H, W, 3]``, grey in place of the rest; soft masks mix."""
    return (video - GREY) * (1.0 - masks)[..., None] + GREY


def reactive_part(video: Tensor, masks: Tensor) -> Tensor:
    """What is made anew of a video ``[F, H, W, 3]``, grey in place of the rest; soft masks mix."""
    return (video - GREY) * masks[..., None] + GREY


def mask_channels(masks: Tensor, latent_size: tuple[int, int]) -> Tensor:
    """Masks in the size of a latent: the values of a cell become channels, row by row.

    Args:
        masks: ``[F, H, W]``.
        latent_size: rows and columns.

    Returns:
        ``[1, 64, T, *latent_size]``; each latent frame has the mask of a frame in the middle of its own.
    """
    rows, columns = latent_size
    size = (rows * MASK_CELL, columns * MASK_CELL)
    if masks.shape[1:] != size:
        masks = functional.interpolate(masks[:, None], size=size, mode="nearest-exact")[:, 0]
    cells = masks.unflatten(2, (columns, MASK_CELL)).unflatten(1, (rows, MASK_CELL))
    channels = cells.permute(2, 4, 0, 1, 3).flatten(0, 1)
    latent_frames = (masks.shape[0] + TEMPORAL_STRIDE - 1) // TEMPORAL_STRIDE
    return functional.interpolate(channels[None], size=(latent_frames, rows, columns), mode="nearest-exact")


def on_white(images: Tensor, width: int, height: int) -> Tensor:
    """Pictures with white bars, so that they have about the aspect ratio of a video.

    Args:
        images: ``[B, h, w, 3]``.
        width: of the video.
        height: of the video.

    Returns:
        ``[B, h', w', 3]``, of which one size is that of the pictures.
    """
    rows, columns = images.shape[1:3]
    canvas_rows = max(rows, columns * height // width)
    canvas_columns = max(columns, rows * width // height)
    canvas = torch.ones(images.shape[0], canvas_rows, canvas_columns, 3)
    top, left = (canvas_rows - rows) // 2, (canvas_columns - columns) // 2
    canvas[:, top : top + rows, left : left + columns] = images[..., :3]
    return canvas


def side_by_side(images: Tensor) -> Tensor:
    """Pictures ``[B, h, w, 3]`` as one, from left to right: ``[1, h, B w, 3]``."""
    return torch.cat(list(images), dim=1)[None]


def check_pictures(images: Tensor, input_name: str) -> None:
    """Refuse what are no pictures.

    Raises:
        InputError: it says what was given.
    """
    if images.ndim != 4 or images.shape[-1] < 3 or not images.numel():
        raise InputError(
            input_name, f"expected pictures [frames, height, width, 3], got shape {tuple(images.shape)}"
        )
