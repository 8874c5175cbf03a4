"""The network of both Wan VAEs, built from the shapes of a checkpoint.

Wan 2.1 lists its layers flat, Wan 2.2 in levels with a shortcut around each (see :mod:`.wan22`); the rest
is the same, and every width comes from the file. Parameter names are those of the official files.

Source: Wan2.1 ``wan/modules/vae.py``, Wan2.2 ``wan/modules/vae2_2.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from ..errors import ModelFileError
from ..weights.checkpoint import Checkpoint
from .cache import FeatureCache, stream
from .extents import features_around_pixels, pixels_around_features, values_per_position
from .layers import (
    CausalConv,
    Downsample,
    FrameAttention,
    PointConv,
    ResidualBlock,
    Upsample,
    head,
    run_head,
)
from .wan22 import DownLevel, UpLevel, patchify, unpatchify

COLOURS = 3


class Encoder(nn.Module):
    """Pixels to the parameters of the latent's distribution."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        width, in_channels = checkpoint.shape("encoder.conv1.weight")[:2]
        self.conv1 = CausalConv(in_channels, width)
        self.downsamples = _stages(checkpoint, "encoder.downsamples", _down_stage)
        self.middle, width = _middle(checkpoint, "encoder.middle")
        self.head = head(width, checkpoint.shape("encoder.head.2.weight")[0])


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        width, latent_channels = checkpoint.shape("decoder.conv1.weight")[:2]
        self.conv1 = CausalConv(latent_channels, width)
        self.middle, _ = _middle(checkpoint, "decoder.middle")
        self.upsamples = _stages(checkpoint, "decoder.upsamples", _up_stage)
        out_channels, width = checkpoint.shape("decoder.head.2.weight")[:2]
        self.head = head(width, out_channels)


class WanVae(nn.Module):
    """A Wan 2.1 or 2.2 VAE, frame by frame, on un-normalised latents.

    Encoding is :meth:`shrink` then :meth:`settle`, decoding :meth:`lift` then :meth:`render`. ``settle``
    and ``lift`` contain the attention over the whole frame and are cheap; ``shrink`` and ``render`` are
    convolutions only, so a tile with enough surroundings gives the same values as the whole frame.
    """

    takes_normalised_latents = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.encoder = Encoder(checkpoint)
        self.conv1 = PointConv(*_point_widths(checkpoint, "conv1.weight"))
        self.conv2 = PointConv(*_point_widths(checkpoint, "conv2.weight"))
        self.decoder = Decoder(checkpoint)
        self.latent_channels = checkpoint.shape("conv2.weight")[0]
        self.patch = _patch(checkpoint)
        self.spatial_stride = self.patch * 2 ** _count(self.encoder, Downsample)
        largest_area = (self.spatial_stride / self.patch) ** 2
        self.shrink_values = values_per_position(self.encoder, largest_area)
        self.render_values = values_per_position(self.decoder, largest_area)
        self.shrink_margin = -(-pixels_around_features(self.encoder) * self.patch // self.spatial_stride)
        self.render_margin = features_around_pixels(self.decoder)

    def frame_order(self, frames: int) -> range:
        """The pixel frames to feed to :meth:`shrink`, in order."""
        return range(frames)

    def shrink(self, pixels: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """A frame ``[B, 3, H, W]`` in [-1, 1] -> features ``[B, C, h, w]`` once a latent's worth is in."""
        x = self.encoder.conv1(patchify(pixels, self.patch), cache)
        return stream(list(self.encoder.downsamples), x, cache)

    def settle(self, features: Tensor, cache: FeatureCache) -> Tensor:
        """Features -> the mean of the latent's distribution, ``[B, latent_channels, h, w]``."""
        (x,) = stream(list(self.encoder.middle), features, cache)
        return self.conv1(run_head(self.encoder.head, x, cache))[:, : self.latent_channels]

    def lift(self, latent: Tensor, cache: FeatureCache) -> Tensor:
        """A latent frame ``[B, latent_channels, h, w]`` -> features ``[B, C, h, w]``."""
        x = self.decoder.conv1(self.conv2(latent), cache)
        (x,) = stream(list(self.decoder.middle), x, cache)
        return x

    def render(self, features: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """Features -> pixel frames ``[B, 3, H, W]``: one for the clip's first latent, else four."""
        for x in stream(list(self.decoder.upsamples), features, cache):
            yield unpatchify(run_head(self.decoder.head, x, cache), self.patch)


def _point_widths(checkpoint: Checkpoint, key: str) -> tuple[int, int]:
    out_channels, in_channels = checkpoint.shape(key)[:2]
    return in_channels, out_channels


def _patch(checkpoint: Checkpoint) -> int:
    channels = checkpoint.shape("encoder.conv1.weight")[1]
    patch = round((channels / COLOURS) ** 0.5)
    if patch * patch * COLOURS != channels:
        raise ModelFileError(
            checkpoint.path, f"a VAE for {channels} input channels; expected a Wan VAE with 3 or 12"
        )
    return patch


def _count(module: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(part, kind) for part in module.modules())


def _stages(
    checkpoint: Checkpoint, prefix: str, stage: Callable[[Checkpoint, str], nn.Module]
) -> nn.ModuleList:
    """The stages ``prefix.0``, ``prefix.1``, ... as far as the file has them."""
    names = [key.removeprefix(f"{prefix}.") for key in checkpoint if key.startswith(f"{prefix}.")]
    count = max((int(name.split(".")[0]) for name in names), default=-1) + 1
    return nn.ModuleList(stage(checkpoint, f"{prefix}.{number}") for number in range(count))


def _residual_block(checkpoint: Checkpoint, prefix: str) -> ResidualBlock:
    out_channels, in_channels = checkpoint.shape(f"{prefix}.residual.2.weight")[:2]
    return ResidualBlock(in_channels, out_channels)


def _middle(checkpoint: Checkpoint, prefix: str) -> tuple[nn.ModuleList, int]:
    width = checkpoint.shape(f"{prefix}.0.residual.2.weight")[0]
    blocks = (_residual_block(checkpoint, f"{prefix}.{number}") for number in (0, 2))
    return nn.ModuleList([next(blocks), FrameAttention(width), next(blocks)]), width


def _down_stage(checkpoint: Checkpoint, prefix: str) -> nn.Module:
    if f"{prefix}.downsamples.0.residual.2.weight" in checkpoint:
        return DownLevel(_stages(checkpoint, f"{prefix}.downsamples", _down_stage))
    return _block_or_resample(checkpoint, prefix, Downsample)


def _up_stage(checkpoint: Checkpoint, prefix: str) -> nn.Module:
    if f"{prefix}.upsamples.0.residual.2.weight" in checkpoint:
        return UpLevel(_stages(checkpoint, f"{prefix}.upsamples", _up_stage))
    return _block_or_resample(checkpoint, prefix, Upsample)


def _block_or_resample(
    checkpoint: Checkpoint, prefix: str, resample: type[Downsample] | type[Upsample]
) -> nn.Module:
    if f"{prefix}.residual.2.weight" in checkpoint:
        return _residual_block(checkpoint, prefix)
    out_channels, in_channels = checkpoint.shape(f"{prefix}.resample.1.weight")[:2]
    return resample(in_channels, out_channels, is_temporal=f"{prefix}.time_conv.weight" in checkpoint)
