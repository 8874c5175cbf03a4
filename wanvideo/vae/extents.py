"""What the layers of a Wan VAE see and hold: margins of tiles, and memory, without running it."""

from __future__ import annotations

from torch import nn

from .layers import CausalConv, Downsample, ResidualBlock, Upsample

_CONVOLUTION = 1  # a 3x3 convolution sees one position to each side
_AREA = 4  # positions at twice the height and width


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


def values_per_position(half: nn.Module, largest_area: float) -> tuple[float, float]:
    """Numbers held per latent position while an encoder or a decoder runs.

    Args:
        half: encoder or decoder.
        largest_area: positions per latent where it is largest: the pixels, or their patches.

    Returns:
        Those that stay between frames, and the most a layer needs beside them for the frame it works on.
    """
    stages = _stages(half)
    area = largest_area / _AREA ** sum(isinstance(stage, Upsample) for stage in stages)
    kept = busy = 0.0
    for stage in stages:
        kept += area * sum(_kept_channels(conv) for conv in stage.modules() if isinstance(conv, CausalConv))
        busy = max(busy, area * _busy_channels(stage))
        if isinstance(stage, Upsample):
            area *= _AREA
        elif isinstance(stage, Downsample):
            area /= _AREA
    last = [conv for name, conv in half.named_modules() if name == "head.2"]
    return kept + area * sum(_kept_channels(conv) for conv in last if isinstance(conv, CausalConv)), busy


def _kept_channels(conv: CausalConv) -> int:
    _, in_channels, taps = conv.weight.shape[:3]
    return in_channels * (taps - 1)


def _busy_channels(stage: nn.Module) -> float:
    """Channels alive at the stage's input size: what goes in, what comes out and what is in between."""
    if isinstance(stage, ResidualBlock):
        _, conv_1, _, conv_2 = stage.residual.values()
        assert isinstance(conv_1, CausalConv)
        assert isinstance(conv_2, CausalConv)
        in_channels, out_channels, taps = conv_1.weight.shape[1], *conv_2.weight.shape[:3:2]
        return in_channels + taps * max(in_channels, out_channels) + out_channels
    assert isinstance(stage, Downsample | Upsample)
    conv = stage.resample["1"]
    assert isinstance(conv, nn.Conv2d)
    if isinstance(stage, Downsample):
        return 2 * conv.in_channels + conv.out_channels / _AREA
    frames = 1 if stage.time_conv is None else 2
    return conv.in_channels + _AREA * (conv.in_channels + frames * conv.out_channels)


def _stages(half: nn.Module) -> list[nn.Module]:
    """Residual blocks and resamplings in order, without the middle, which always sees the whole frame."""
    return [
        module
        for name, module in half.named_modules()
        if isinstance(module, Downsample | Upsample | ResidualBlock) and not name.startswith("middle.")
    ]
