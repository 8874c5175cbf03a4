"""Pictures as CLIP's image encoder takes them, whole and in tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

# Of the pictures CLIP was trained on (Radford et al. 2021, openai/CLIP `clip.py`).
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
LEVELS = 255.0


def pixels_for_clip(images: Tensor, size: int, *, crop: bool) -> Tensor:
    """Resize, round to 8 bit and normalise, with the numbers of ComfyUI's `clip_preprocess`.

    Args:
        images: ``[B, H, W, C]`` in [0, 1]; an alpha channel is dropped.
        size: side of the square in pixels.
        crop: resize the shorter side and cut the middle; otherwise the picture is squeezed.

    Returns:
        ``[B, 3, size, size]``, float32.

    Raises:
        InputError: not a batch of colour pictures.
    """
    check_images(images, input_name="image")
    pixels = images[..., :3].float().movedim(-1, 1)
    height, width = pixels.shape[2:]
    if (height, width) != (size, size):
        target = (size, size)
        if crop:
            scale = size / min(height, width)
            target = (round(scale * height), round(scale * width))
        pixels = F.interpolate(pixels, size=target, mode="bicubic", antialias=True)
        top, left = (target[0] - size) // 2, (target[1] - size) // 2
        pixels = pixels[:, :, top : top + size, left : left + size]
    pixels = (pixels * LEVELS).clamp_(0.0, LEVELS).round_() / LEVELS
    mean, deviation = (
        torch.tensor(values, device=pixels.device)[:, None, None] for values in (MEAN, DEVIATION)
    )
    return (pixels - mean) / deviation


def check_images(images: Tensor, *, input_name: str) -> None:
    """Raise :class:`InputError` unless `images` is a batch of colour pictures ``[B, H, W, 3 or more]``."""
    if images.ndim != 4 or images.shape[-1] < 3 or 0 in images.shape:
        raise InputError(input_name, f"expected pictures [B, H, W, 3], got a shape of {tuple(images.shape)}")


def encode_tiles(
    encode: Callable[[Tensor], Tensor], images: Tensor, tiles: int, *, input_name: str
) -> Tensor:
    """Rows of pictures that are encoded in tiles: more detail in as many rows.

    Each picture is cut into ``tiles`` x ``tiles`` equal parts, which are encoded on their own. Their grids of
    rows, laid side by side, are averaged down to one grid; the class rows are averaged. The idea is that of
    the tiled encoding in cubiq's ComfyUI_IPAdapter_plus (`utils.py`).

    Args:
        encode: pictures ``[B, H, W, C]`` to rows ``[B, 1 + grid^2, width]``.
        images: ``[B, H, W, C]``; rows and columns of pixels that do not fill a tile are left out.
        tiles: per side, 2 to 16.
        input_name: of the pictures, for the message.

    Returns:
        ``[B, 1 + grid^2, width]``.

    Raises:
        InputError: a picture with fewer pixels than tiles.
    """
    check_images(images, input_name=input_name)
    height, width = images.shape[1] // tiles, images.shape[2] // tiles
    if not height or not width:
        raise InputError(
            input_name,
            f"a picture of {images.shape[2]}x{images.shape[1]} pixels cannot be cut into {tiles} x {tiles} "
            "tiles; lower tiles",
        )
    merged = [_merged(encode(_tiles(image, tiles, height, width)), tiles) for image in images]
    return torch.stack(merged)


def _tiles(image: Tensor, tiles: int, height: int, width: int) -> Tensor:
    """``[H, W, C]`` to ``[tiles^2, height, width, C]``, row by row."""
    kept = image[: tiles * height, : tiles * width]
    grid = kept.unflatten(0, (tiles, height)).unflatten(2, (tiles, width))
    return grid.transpose(1, 2).flatten(0, 1)


def _merged(rows: Tensor, tiles: int) -> Tensor:
    """Rows of the tiles of one picture ``[tiles^2, 1 + grid^2, width]`` to ``[1 + grid^2, width]``."""
    side = round((rows.shape[1] - 1) ** 0.5)
    grids = rows[:, 1:].unflatten(1, (side, side)).unflatten(0, (tiles, tiles))
    picture = grids.transpose(1, 2).flatten(2, 3).flatten(0, 1)  # [tiles * side, tiles * side, width]
    averaged = F.avg_pool2d(picture.movedim(-1, 0), tiles).flatten(1).T
    return torch.cat([rows[:, 0].mean(dim=0, keepdim=True), averaged])
