"""How far a value of the VAE's output sees, so that tiles can carry enough surroundings."""

from __future__ import annotations

from torch import nn

from .layers import Downsample, ResidualBlock, Upsample

_CONVOLUTION = 1  # a 3x3 convolution sees one position to each side


def pixels_around_features(encoder: nn.Module) -> int:
    """Pixels (or patches) on each side that an encoder's features see beyond the ones they replace."""
    reach = 0
    for stage in reversed(_stages(encoder)):
        # Stride 2 with the padding at the end: output i sees the inputs 2i, 2i+1, 2i+2.
        reach = 2 * reach + 1 if isinstance(stage, Downsample) else reach + 2 * _CONVOLUTION
    return reach + _CONVOLUTION


def features_around_pixels(decoder: nn.Module) -> int:
    """Features on each side that a decoder's pixels see beyond the ones they come from."""
    reach = _CONVOLUTION
    for stage in reversed(_stages(decoder)):
        is_upsample = isinstance(stage, Upsample)
        reach = (reach + _CONVOLUTION + 1) // 2 if is_upsample else reach + 2 * _CONVOLUTION
    return reach


def _stages(half: nn.Module) -> list[nn.Module]:
    """Residual blocks and resamplings in order, without the middle, which always sees the whole frame."""
    return [
        module
        for name, module in half.named_modules()
        if isinstance(module, Downsample | Upsample | ResidualBlock) and not name.startswith("middle.")
    ]
