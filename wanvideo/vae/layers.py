"""Layers of the Wan VAEs, one frame at a time.

A causal 3D convolution that makes one output frame is a 2D convolution over its stacked input frames:
``[B, C, n, H, W]`` and ``[out, C, n, h, w]`` flatten to ``[B, C * n, H, W]`` and ``[out, C * n, h, w]``
without a copy. Zero frames before the start of the clip are left out, with their share of the weight.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cache import FeatureCache

_SMALLEST_NORM = 1e-12
_QUERIES_AT_ONCE = 8192  # bounds the score matrix where no fused attention takes this head width


class CausalConv(nn.Module):
    """3D convolution over the current frame and the ones before it; weight ``[out, in, frames, h, w]``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def window(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """``[B, C, n, H, W]`` with the earlier frames filled in and the last one, of x's shape, not yet."""
        earlier = cache.frames(self)
        count = 0 if earlier is None else earlier.shape[2]
        batch, channels, height, width = x.shape
        window = x.new_empty(batch, channels, count + 1, height, width)
        if earlier is not None:
            window[:, :, :-1].copy_(earlier, non_blocking=True)
        return window

    def convolve(self, window: Tensor, cache: FeatureCache) -> Tensor:
        """``[B, C, n, H, W]`` -> ``[B, out, H, W]``; keeps the last frames for the next call."""
        taps = self.weight.shape[2]
        cache.keep(self, window[:, :, 1 - taps :])
        weight = self.weight[:, :, -window.shape[2] :].flatten(1, 2)
        return F.conv2d(window.flatten(1, 2), weight, self.bias, padding=self.weight.shape[-1] // 2)

    def forward(self, x: Tensor, cache: FeatureCache) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, out, H, W]``."""
        window = self.window(x, cache)
        window[:, :, -1].copy_(x)
        return self.convolve(window, cache)


class PointConv(nn.Module):
    """1x1x1 convolution; weight ``[out, in, 1, 1, 1]``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, out, H, W]``."""
        return F.conv2d(x, self.weight.squeeze(2), self.bias)


class ChannelNorm(nn.Module):
    """Scale each position's channel vector to length ``sqrt(C)``, times gamma. Statistics in fp32."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, *(1,) * dimensions))

    def into(self, out: Tensor, x: Tensor) -> Tensor:
        """Write the normalised ``x``, ``[B, C, H, W]``, into ``out``, which may be a strided view."""
        statistics = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=statistics)
        factor = length.clamp_min_(_SMALLEST_NORM).reciprocal_().mul_(x.shape[1] ** 0.5)
        torch.mul(x, factor, out=out)
        return out.mul_(self.gamma.view(-1, 1, 1))


def activated(norm: ChannelNorm, conv: CausalConv, x: Tensor, cache: FeatureCache) -> Tensor:
    """``SiLU(norm(x))``, written straight into the window of the convolution that follows."""
    window = conv.window(x, cache)
    F.silu(norm.into(window[:, :, -1], x), inplace=True)
    return window


class ResidualBlock(nn.Module):
    """Twice norm, SiLU and causal convolution, plus the input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.residual = nn.ModuleDict(
            {
                "0": ChannelNorm(in_channels, 3),
                "2": CausalConv(in_channels, out_channels),
                "3": ChannelNorm(out_channels, 3),
                "6": CausalConv(out_channels, out_channels),
            }
        )
        self.shortcut = PointConv(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:
        """``[B, C, H, W]`` -> one frame ``[B, out, H, W]``."""
        norm_1, conv_1, norm_2, conv_2 = cast(
            "tuple[ChannelNorm, CausalConv, ChannelNorm, CausalConv]", tuple(self.residual.values())
        )
        window = activated(norm_1, conv_1, x, cache)
        hidden = conv_1.convolve(window, cache)
        del window  # at full resolution each of these is the size of several pixel frames
        window = activated(norm_2, conv_2, hidden, cache)
        del hidden
        out = conv_2.convolve(window, cache)
        del window
        return [out.add_(self.shortcut(x))]


class FrameAttention(nn.Module):
    """Single-head self-attention over the positions of one frame, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:  # noqa: ARG002 - a Stage
        """``[B, C, H, W]`` -> one frame of that shape."""
        tokens = self.norm.into(torch.empty_like(x), x).flatten(2).transpose(1, 2)
        qkv = F.linear(tokens, self.to_qkv.weight.flatten(1), self.to_qkv.bias).unsqueeze(1)
        query, key, value = qkv.chunk(3, dim=-1)
        parts = [
            F.scaled_dot_product_attention(rows, key, value) for rows in query.split(_QUERIES_AT_ONCE, dim=2)
        ]
        mixed = F.linear(torch.cat(parts, dim=2).squeeze(1), self.proj.weight.flatten(1), self.proj.bias)
        return [x + mixed.transpose(1, 2).view_as(x)]


class Upsample(nn.Module):
    """Double height and width; with a time convolution also every frame after the clip's first."""

    def __init__(self, in_channels: int, out_channels: int, *, is_temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(in_channels, out_channels, 3, padding=1)})
        self.time_conv = CausalConv(in_channels, 2 * in_channels, (3, 1, 1)) if is_temporal else None

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:
        """``[B, C, H, W]`` -> one or two frames ``[B, out, 2H, 2W]``."""
        conv = self.resample["1"]
        frames = self._in_time(x, cache)
        return [conv(F.interpolate(frame, scale_factor=2.0, mode="nearest-exact")) for frame in frames]

    def _in_time(self, x: Tensor, cache: FeatureCache) -> tuple[Tensor, ...]:
        # The first frame passes as it is and is not remembered: the second one sees nothing before it.
        if self.time_conv is None or cache.is_first_visit(self):
            return (x,)
        return self.time_conv(x, cache).chunk(2, dim=1)


class Downsample(nn.Module):
    """Halve height and width; with a time convolution also two frames to one, after the clip's first."""

    def __init__(self, in_channels: int, out_channels: int, *, is_temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(in_channels, out_channels, 3, stride=2)})
        self.time_conv = CausalConv(out_channels, out_channels, (3, 1, 1)) if is_temporal else None

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:
        """``[B, C, H, W]`` -> one frame ``[B, out, H/2, W/2]``, or none while its pair is incomplete."""
        small = self.resample["1"](F.pad(x, (0, 1, 0, 1)))
        if self.time_conv is None:
            return [small]
        earlier = cache.frames(self)
        if earlier is None:
            cache.keep(self, small.unsqueeze(2))
            return [small]
        frames = torch.cat([earlier.to(small.device), small.unsqueeze(2)], dim=2)
        if frames.shape[2] < 3:
            cache.keep(self, frames)
            return []
        cache.keep(self, frames[:, :, -1:])
        weight = self.time_conv.weight.flatten(1, 2)
        return [F.conv2d(frames.flatten(1, 2), weight, self.time_conv.bias)]


def head(in_channels: int, out_channels: int) -> nn.ModuleDict:
    """Norm, SiLU (no weights, hence no entry) and the last causal convolution; run by :func:`run_head`."""
    return nn.ModuleDict({"0": ChannelNorm(in_channels, 3), "2": CausalConv(in_channels, out_channels)})


def run_head(layers: nn.ModuleDict, x: Tensor, cache: FeatureCache) -> Tensor:
    """``[B, C, H, W]`` -> ``[B, out, H, W]`` through a :func:`head`."""
    norm, conv = cast("tuple[ChannelNorm, CausalConv]", tuple(layers.values()))
    return conv.convolve(activated(norm, conv, x, cache), cache)
