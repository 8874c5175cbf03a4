"""The space the diffusion model works in: VAE latents with each channel shifted and scaled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from ..errors import InputError

WIDE_LATENT_CHANNELS = 48
VAE_NAMES = MappingProxyType({16: "Wan 2.1 VAE", WIDE_LATENT_CHANNELS: "Wan 2.2 VAE"})  # by latent channels
_STATISTICS = Path(__file__).resolve().parents[2] / "configs" / "latent_statistics.json"


@dataclass(frozen=True)
class LatentSpace:
    """Mean and standard deviation of each channel of a VAE's latents.

    LATENT sockets and :class:`VideoVAE` carry un-normalised latents, the model sees normalised ones.
    """

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, latent: Tensor) -> Tensor:
        """``(latent - mean) / std`` for ``[B, C, ...]``; computed in fp32, returned in the input's dtype.

        Raises:
            InputError: the latent has another number of channels.
        """
        mean, std = self._statistics_like(latent)
        return ((latent.float() - mean) / std).to(latent.dtype)

    def denormalise(self, latent: Tensor) -> Tensor:
        """``latent * std + mean`` for ``[B, C, ...]``: the inverse of :meth:`normalise`.

        Raises:
            InputError: the latent has another number of channels.
        """
        mean, std = self._statistics_like(latent)
        return (latent.float() * std + mean).to(latent.dtype)

    def zero(self) -> Tensor:
        """``[1, C, 1, 1, 1]``: what the model sees as zero, in the un-normalised space."""
        return torch.tensor(self.mean).view(1, -1, 1, 1, 1)

    def _statistics_like(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        if latent.shape[1] != self.channels:
            raise InputError(
                "samples",
                f"the latent has {latent.shape[1]} channels, expected {self.channels}; "
                "16 channels belong to the Wan 2.1 VAE, 48 to the Wan 2.2 VAE",
            )
        shape = (1, -1, *(1,) * (latent.ndim - 2))
        mean = torch.tensor(self.mean, device=latent.device).view(shape)
        return mean, torch.tensor(self.std, device=latent.device).view(shape)


def latent_space_for(channels: int) -> LatentSpace:
    """The latent space of the Wan VAE with this many latent channels: 16 (2.1) or 48 (2.2).

    Raises:
        InputError: no Wan VAE has this many latent channels.
    """
    statistics = json.loads(_STATISTICS.read_text("utf-8"))
    if str(channels) not in statistics:
        known = " or ".join(statistics)
        raise InputError("vae", f"no Wan VAE has {channels} latent channels; expected {known}")
    entry = statistics[str(channels)]
    return LatentSpace(channels, tuple(entry["mean"]), tuple(entry["std"]))


def described_vae(latent_channels: int) -> str:
    """The VAE that makes latents of so many channels, as messages call it."""
    if latent_channels not in VAE_NAMES:
        return f"a VAE of {latent_channels} channels"
    hint = " (of the 5B model)" if latent_channels == WIDE_LATENT_CHANNELS else ""
    return f"the {VAE_NAMES[latent_channels]}{hint}"
