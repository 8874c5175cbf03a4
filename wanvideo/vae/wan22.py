"""What the Wan 2.2 VAE has beyond the 2.1 one: pixel patches, and levels with a parameter-free shortcut.

Source: Wan2.2 ``wan/modules/vae2_2.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .cache import FeatureCache, stream
from .layers import Downsample, ResidualBlock, Upsample


def patchify(pixels: Tensor, patch: int) -> Tensor:
    """``[B, C, H, W]`` -> ``[B, C * patch^2, H/patch, W/patch]``; channels count colour, column, row."""
    if patch == 1:
        return pixels
    batch, channels, height, width = pixels.shape
    grid = pixels.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 1, 5, 3, 2, 4).reshape(batch, -1, height // patch, width // patch)


def unpatchify(x: Tensor, patch: int) -> Tensor:
    """The inverse of :func:`patchify`."""
    if patch == 1:
        return x
    batch, channels, height, width = x.shape
    grid = x.reshape(batch, channels // patch**2, patch, patch, height, width)
    return grid.permute(0, 1, 4, 3, 5, 2).reshape(batch, -1, height * patch, width * patch)


class DownLevel(nn.Module):
    """Residual blocks and a downsampling, plus the averaged input."""

    def __init__(self, downsamples: nn.ModuleList) -> None:
        super().__init__()
        self.downsamples = downsamples
        self.out_channels = _out_channels(downsamples)
        self.spatial_factor, self.temporal_factor = _factors(downsamples)

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:
        """``[B, C, H, W]`` -> one frame ``[B, out, H/2, W/2]``, or none while its pair is incomplete."""
        produced = list(stream(list(self.downsamples), x, cache))
        if not produced:
            cache.keep(self, x.unsqueeze(2))
            return []
        frames = [x]
        if self.temporal_factor == 2:  # before the clip's first frame there are zeros
            earlier = cache.take(self)
            first = torch.zeros_like(x) if earlier is None else earlier.to(x.device).squeeze(2)
            frames = [first, x]
        return [produced[0].add_(average_down(frames, self.out_channels, self.spatial_factor))]


class UpLevel(nn.Module):
    """Residual blocks and an upsampling, plus the repeated input where there is an upsampling."""

    def __init__(self, upsamples: nn.ModuleList) -> None:
        super().__init__()
        self.upsamples = upsamples
        self.out_channels = _out_channels(upsamples)
        self.spatial_factor, self.temporal_factor = _factors(upsamples)

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:
        """``[B, C, H, W]`` -> one or two frames ``[B, out, 2H, 2W]``."""
        produced = list(stream(list(self.upsamples), x, cache))
        if self.spatial_factor == 1:
            return produced
        shortcut = repeat_up(x, self.out_channels, self.temporal_factor, self.spatial_factor)
        # The clip's first frame stays single: of its repetitions the last one counts.
        for frame, repeated in zip(produced, shortcut[-len(produced) :], strict=True):
            frame.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).add_(repeated)
        return produced


def average_down(frames: list[Tensor], out_channels: int, spatial_factor: int) -> Tensor:
    """Average frames, pixels and channels into ``[B, out_channels, H/s, W/s]``.

    The values of one output channel are consecutive in the order channel, frame, row, column.

    Args:
        frames: one or two of ``[B, C, H, W]``.
        out_channels: divides ``C * len(frames) * spatial_factor ** 2``.
        spatial_factor: 1 or 2.
    """
    x = torch.stack(frames, dim=2)
    batch, _, _, height, width = x.shape
    rows, columns = height // spatial_factor, width // spatial_factor
    grid = x.reshape(batch, -1, len(frames), rows, spatial_factor, columns, spatial_factor)
    return grid.permute(0, 1, 2, 4, 6, 3, 5).reshape(batch, out_channels, -1, rows, columns).mean(2)


def repeat_up(x: Tensor, out_channels: int, temporal_factor: int, spatial_factor: int) -> list[Tensor]:
    """Repeat channels over frames and pixels: one ``[B, out, H, s, W, s]`` per frame.

    Args:
        x: ``[B, C, H, W]``.
        out_channels: ``out_channels * temporal_factor * spatial_factor ** 2`` is a multiple of ``C``.
        temporal_factor: frames to make, 1 or 2.
        spatial_factor: 1 or 2.
    """
    copies = out_channels * temporal_factor * spatial_factor**2 // x.shape[1]
    grid = x.repeat_interleave(copies, dim=1)
    grid = grid.unflatten(1, (out_channels, temporal_factor, spatial_factor, spatial_factor))
    return list(grid.permute(2, 0, 1, 5, 3, 6, 4).unbind(0))


def _out_channels(stages: Iterable[nn.Module]) -> int:
    blocks = [stage for stage in stages if isinstance(stage, ResidualBlock)]
    return blocks[-1].out_channels


def _factors(stages: Iterable[nn.Module]) -> tuple[int, int]:
    resamples = [stage for stage in stages if isinstance(stage, Downsample | Upsample)]
    if not resamples:
        return 1, 1
    return 2, 1 if resamples[0].time_conv is None else 2
