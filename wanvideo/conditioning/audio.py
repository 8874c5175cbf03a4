"""Latents of sound that is generated together with a video."""

from __future__ import annotations

import torch
from torch import Tensor

OVI_AUDIO_CHANNELS = 20  # of the MMAudio VAE for 16 kHz
OVI_AUDIO_RATE = 31.25  # latent frames per second


def empty_ovi_audio(length: int) -> Tensor:
    """An audio latent to be generated.

    Args:
        length: latent frames; 157 are five seconds.

    Returns:
        Zeros ``[length, 20]``.
    """
    return torch.zeros(length, OVI_AUDIO_CHANNELS)
