"""Key names and shapes of the Wan 2.2 VAE.

It takes pixels in patches of 2 x 2 and groups its blocks in levels (Wan2.2 ``wan/modules/vae2_2.py``).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .specs import Shapes, numbered, prefixed, resampler, residual_block, vae_middle, weights

_PATCH_CHANNELS = 3 * 2 * 2


@dataclass(frozen=True)
class VAE22Size:
    """Sizes of a Wan 2.2 VAE; the real one has `encoder_base` 160 and `decoder_base` 256."""

    encoder_base: int = 16
    decoder_base: int = 24
    latent_channels: int = 48
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    halves_time: tuple[bool, ...] = (False, True, True)


def wan22_vae(size: VAE22Size) -> Shapes:
    """The Wan 2.2 VAE, encoder and decoder."""
    latent = size.latent_channels
    return {
        **prefixed("encoder.", _encoder(size)),
        **weights("conv1", 2 * latent, 2 * latent, 1, 1, 1),
        **weights("conv2", latent, latent, 1, 1, 1),
        **prefixed("decoder.", _decoder(size)),
    }


def _encoder(size: VAE22Size) -> Shapes:
    widths = [size.encoder_base * multiplier for multiplier in (1, *size.multipliers)]
    halves_time = (*size.halves_time, None)
    levels = [
        _level(
            "downsamples", pair, blocks=size.residual_blocks, time_channels=_time_channels(pair[1], 1, time)
        )
        for pair, time in zip(itertools.pairwise(widths), halves_time, strict=True)
    ]
    return {
        **weights("conv1", widths[0], _PATCH_CHANNELS, 3, 3, 3),
        **numbered("downsamples", levels),
        **_end(widths[-1], 2 * size.latent_channels, middle_width=widths[-1]),
    }


def _decoder(size: VAE22Size) -> Shapes:
    outward = [
        size.decoder_base * multiplier for multiplier in (size.multipliers[-1], *reversed(size.multipliers))
    ]
    doubles_time = (*reversed(size.halves_time), None)
    levels = [
        _level(
            "upsamples", pair, blocks=size.residual_blocks + 1, time_channels=_time_channels(pair[1], 2, time)
        )
        for pair, time in zip(itertools.pairwise(outward), doubles_time, strict=True)
    ]
    return {
        **weights("conv1", outward[0], size.latent_channels, 3, 3, 3),
        **numbered("upsamples", levels),
        **_end(outward[-1], _PATCH_CHANNELS, middle_width=outward[0]),
    }


def _level(name: str, widths: tuple[int, int], *, blocks: int, time_channels: int | None) -> Shapes:
    """Blocks of one width and a change of size, which the innermost or outermost level lacks (None)."""
    incoming, width = widths
    layers = [residual_block(incoming, width), *[residual_block(width, width)] * (blocks - 1)]
    if time_channels is not None:
        layers.append(resampler(width, width, time_channels=time_channels))
    return numbered(name, layers)


def _time_channels(width: int, factor: int, changes_time: bool | None) -> int | None:
    return None if changes_time is None else factor * width * changes_time


def _end(width: int, channels: int, *, middle_width: int) -> Shapes:
    return {
        **vae_middle(middle_width),
        "head.0.gamma": (width, 1, 1, 1),
        **weights("head.2", channels, width, 3, 3, 3),
    }
