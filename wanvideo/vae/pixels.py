"""Between ComfyUI's pictures and the VAE's pixels, always out of place."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

NORMALIZATIONS = ("default", "minmax", "none")


def pixels_from_images(images: Tensor) -> Tensor:
    """IMAGE ``[F, H, W, C]`` in [0, 1] -> pixels ``[1, 3, F, H, W]`` in [-1, 1], fp32.

    An alpha channel is dropped.

    Raises:
        InputError: not a batch of colour pictures.
    """
    if images.ndim != 4 or images.shape[-1] < 3:
        raise InputError("image", f"expected pictures [F, H, W, 3], got a shape of {tuple(images.shape)}")
    return (images[..., :3].float() * 2.0 - 1.0).permute(3, 0, 1, 2).unsqueeze(0)


def images_from_pixels(pixels: Tensor, *, normalization: str = "default") -> Tensor:
    """Pixels ``[B, 3, F, H, W]`` -> IMAGE ``[B * F, H, W, 3]``, fp32; see :func:`normalise_pixels`."""
    return normalise_pixels(pixels, normalization).permute(0, 2, 3, 4, 1).flatten(0, 1).contiguous()


def normalise_pixels(pixels: Tensor, normalization: str) -> Tensor:
    """Bring decoded pixels, nominally [-1, 1], into the range asked for.

    Args:
        pixels: any shape.
        normalization: ``default`` clamps to [-1, 1] and maps to [0, 1]; ``minmax`` stretches the clip's own
            extremes to [0, 1]; ``none`` leaves the values as they are.

    Raises:
        InputError: another word.
    """
    pixels = pixels.float()
    if normalization == "none":
        return pixels
    if normalization == "default":
        return pixels.clamp(-1.0, 1.0).add_(1.0).mul_(0.5)
    if normalization == "minmax":
        darkest, brightest = torch.aminmax(pixels)
        reach = (brightest - darkest).clamp_min(torch.finfo(pixels.dtype).tiny)
        return (pixels - darkest).div_(reach)
    raise InputError("normalization", f"{normalization!r} is not one of {', '.join(NORMALIZATIONS)}")


def with_noise(pixels: Tensor, strength: float, *, seed: int) -> Tensor:
    """Pixels plus Gaussian noise of standard deviation ``strength``; exactly black values (-1) stay.

    Black stays because padding is drawn in it. The noise is made on the CPU in fp32, so a seed gives the
    same picture everywhere.

    Args:
        pixels: in [-1, 1], any shape.
        strength: 0 returns the pixels unchanged.
        seed: of the noise.
    """
    if strength == 0.0:
        return pixels
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(pixels.shape, generator=generator).to(pixels.device, pixels.dtype)
    return torch.where(pixels == -1.0, pixels, pixels + strength * noise)
