"""A background of noise in the colours of the subject."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .frames import fit_mask

SUBJECT = 0.5  # a mask value above this belongs to the subject


@dataclass(frozen=True)
class NoisyBackground:
    """Pictures whose background was replaced.

    Args:
        images: float32 ``[F, H, W, C]`` in [0, 1], on the CPU.
        without_subject: frames whose mask is empty: their background is black.
    """

    images: Tensor
    without_subject: tuple[int, ...]


def noise_background(images: Tensor, mask: Tensor, *, seed: int, device: torch.device) -> NoisyBackground:
    """Replace what the mask leaves out by Gaussian noise.

    Each channel of the noise has the mean and the standard deviation that the subject has in this frame.

    Args:
        images: ``[F, H, W, C]`` in [0, 1].
        mask: ``[M, h, w]``, 1 on the subject; fitted to the pictures, see :func:`frames.fit_mask`. Values
            between mix picture and noise.
        seed: of the noise; frames and channels are drawn in order.
        device: to work on; another device draws other noise.

    Raises:
        InputError: a mask that cannot be fitted.
    """
    count, height, width, channels = images.shape
    masks = fit_mask(mask, count, images.shape[1:3])
    generator = torch.Generator(device=device).manual_seed(seed)
    result = torch.empty((count, height, width, channels))
    without_subject: list[int] = []
    for index in range(count):
        picture = images[index].to(device, torch.float32)
        weight = masks[index].to(device, torch.float32)[..., None]
        pixels = picture[weight[..., 0] > SUBJECT]
        if pixels.shape[0]:
            noise = _noise_like(pixels, (height, width), generator)
        else:
            without_subject.append(index)
            noise = torch.zeros_like(picture)
        result[index] = (picture * weight + noise * (1 - weight)).cpu()
    return NoisyBackground(result, tuple(without_subject))


def _noise_like(pixels: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Noise ``[*size, C]`` in [0, 1] with the mean and spread of ``pixels`` ``[P, C]``."""
    mean = pixels.mean(dim=0)
    spread = pixels.std(dim=0) if pixels.shape[0] > 1 else torch.zeros_like(mean)
    planes = [torch.randn(size, generator=generator, device=pixels.device) for _ in mean]
    return (torch.stack(planes, dim=-1) * spread + mean).clamp(0.0, 1.0)
