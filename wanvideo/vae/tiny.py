"""TAEHV: a tiny autoencoder in the latent space of a Wan VAE, for previews and quick looks.

Source: github.com/madebyollin/taehv (taew2_1, taew2_2); the lighttae files of LightX2V have the same keys.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelFileError
from ..weights.checkpoint import Checkpoint
from .cache import FeatureCache, stream

TEMPORAL_STRIDE = 4
_LEVEL_STARTS_ENCODER = (2, 7, 12)  # a pooling in time, a strided convolution, three memory blocks
_LEVEL_STARTS_DECODER = (3, 9, 15)  # three memory blocks, a growth in time and space, a convolution
_LAST_ENCODER_LAYER = 17
_LAST_DECODER_LAYER = 22
_MEMORY_BLOCK_REACH = 3  # three 3x3 convolutions


class Conv(nn.Module):
    """3x3 convolution as a stage; bias and activation are optional."""

    def __init__(
        self, checkpoint: Checkpoint, prefix: str, *, stride: int = 1, activation: str = "none"
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(checkpoint.shape(f"{prefix}.weight")))
        has_bias = f"{prefix}.bias" in checkpoint
        self.bias = nn.Parameter(torch.empty(self.weight.shape[0])) if has_bias else None
        self.stride = stride
        self.activation = activation

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:  # noqa: ARG002 - a Stage
        """``[B, C, H, W]`` -> one frame; ``activation`` is ReLU ``before`` or ``after`` the convolution."""
        x = F.relu(x) if self.activation == "before" else x
        x = F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=1)
        return [x.relu_() if self.activation == "after" else x]


class MemoryBlock(nn.Module):
    """Residual block that also sees its previous input frame."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        super().__init__()
        self.conv = nn.ModuleDict()
        for index in ("0", "2", "4"):
            out_channels, in_channels = checkpoint.shape(f"{prefix}.conv.{index}.weight")[:2]
            self.conv[index] = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.skip: nn.Module = nn.Identity()
        if f"{prefix}.skip.weight" in checkpoint:
            out_channels, in_channels = checkpoint.shape(f"{prefix}.skip.weight")[:2]
            self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:
        """``[B, C, H, W]`` -> one frame ``[B, out, H, W]``."""
        earlier = cache.frames(self)
        previous = torch.zeros_like(x) if earlier is None else earlier.to(x.device).squeeze(2)
        hidden = torch.cat([x, previous], dim=1)
        cache.keep(self, x.unsqueeze(2))
        hidden = self.conv["0"](hidden).relu_()
        hidden = self.conv["2"](hidden).relu_()
        hidden = self.conv["4"](hidden)
        return [hidden.add_(self.skip(x)).relu_()]


class TimePool(nn.Module):
    """Mixes as many frames as its weight has room for into one."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        super().__init__()
        out_channels, in_channels = checkpoint.shape(f"{prefix}.conv.weight")[:2]
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.stride = in_channels // out_channels

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:
        """``[B, C, H, W]`` -> one frame, or none while frames are missing."""
        earlier = cache.take(self)
        frames = x.unsqueeze(2) if earlier is None else torch.cat([earlier.to(x.device), x.unsqueeze(2)], 2)
        if frames.shape[2] < self.stride:
            cache.keep(self, frames)
            return []
        return [self.conv(frames.transpose(1, 2).flatten(1, 2))]


class Grow(nn.Module):
    """Makes several frames of one and doubles height and width."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        super().__init__()
        out_channels, in_channels = checkpoint.shape(f"{prefix}.conv.weight")[:2]
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.stride = out_channels // in_channels

    def forward(self, x: Tensor, cache: FeatureCache) -> list[Tensor]:  # noqa: ARG002 - a Stage
        """``[B, C, H, W]`` -> ``stride`` frames ``[B, C, 2H, 2W]``."""
        # A 1x1 convolution before the doubling gives the same values as after it, at a quarter of the cost.
        frames = self.conv(x).chunk(self.stride, dim=1)
        return [F.interpolate(frame, scale_factor=2.0, mode="nearest") for frame in frames]


class TinyVae(nn.Module):
    """A TAEHV autoencoder; see :class:`.network.WanVae` for the four steps.

    Args:
        checkpoint: keys ``encoder.N`` and ``decoder.N``; every width comes from it.
        takes_normalised_latents: True for taew2_1 and taew2_2, which work on what the diffusion model
            sees; False for the lighttae files, which work on the VAE's own latents.
    """

    def __init__(self, checkpoint: Checkpoint, *, takes_normalised_latents: bool) -> None:
        super().__init__()
        self.takes_normalised_latents = takes_normalised_latents
        self.encoder = _encoder(checkpoint)
        self.decoder = _decoder(checkpoint)
        self.latent_channels = checkpoint.shape("decoder.1.weight")[1]
        self.patch = round((checkpoint.shape("encoder.0.weight")[1] / 3) ** 0.5)
        levels = len(_LEVEL_STARTS_DECODER)
        self.spatial_stride = self.patch * 2**levels
        self.shrink_margin = -(-_encoder_reach(levels) * self.patch // self.spatial_stride)
        self.render_margin = _decoder_reach(levels)
        self.shrink_values = _values_held(self.encoder, (self.spatial_stride // self.patch) ** 2)
        self.render_values = _values_held(self.decoder, 1)
        _check_strides(self, checkpoint)

    def frame_order(self, frames: int) -> list[int]:
        """The pixel frames to feed to :meth:`shrink`: the last one fills up its group of four."""
        missing = -frames % TEMPORAL_STRIDE
        return [*range(frames), *[frames - 1] * missing]

    def shrink(self, pixels: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """A frame ``[B, 3, H, W]`` in [-1, 1] -> latent ``[B, latent_channels, h, w]`` every fourth frame."""
        x = F.pixel_unshuffle(pixels.add(1.0).mul_(0.5), self.patch)
        return stream(list(self.encoder.values()), x, cache)

    def settle(self, features: Tensor, cache: FeatureCache) -> Tensor:  # noqa: ARG002 - nothing is left to do
        """The features are the latent."""
        return features

    def lift(self, latent: Tensor, cache: FeatureCache) -> Tensor:  # noqa: ARG002 - needs no other frame
        """Squash a latent frame softly into [-3, 3]."""
        return torch.tanh(latent / 3.0).mul_(3.0)

    def render(self, features: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """Features -> pixel frames ``[B, 3, H, W]``: one for the clip's first latent, else four."""
        is_first = cache.is_first_visit(self)
        for index, x in enumerate(stream(list(self.decoder.values()), features, cache)):
            if is_first and index < TEMPORAL_STRIDE - 1:
                continue  # the network makes four frames of the first latent too; only the last one counts
            yield F.pixel_shuffle(x, self.patch).mul_(2.0).sub_(1.0)


def _encoder(checkpoint: Checkpoint) -> nn.ModuleDict:
    layers: dict[str, nn.Module] = {"0": Conv(checkpoint, "encoder.0", activation="after")}
    for start in _LEVEL_STARTS_ENCODER:
        layers[f"{start}"] = TimePool(checkpoint, f"encoder.{start}")
        layers[f"{start + 1}"] = Conv(checkpoint, f"encoder.{start + 1}", stride=2)
        for number in range(start + 2, start + 5):
            layers[f"{number}"] = MemoryBlock(checkpoint, f"encoder.{number}")
    last = f"{_LAST_ENCODER_LAYER}"
    return nn.ModuleDict({**layers, last: Conv(checkpoint, f"encoder.{last}")})


def _decoder(checkpoint: Checkpoint) -> nn.ModuleDict:
    layers: dict[str, nn.Module] = {"1": Conv(checkpoint, "decoder.1", activation="after")}
    for start in _LEVEL_STARTS_DECODER:
        for number in range(start, start + 3):
            layers[f"{number}"] = MemoryBlock(checkpoint, f"decoder.{number}")
        layers[f"{start + 4}"] = Grow(checkpoint, f"decoder.{start + 4}")
        layers[f"{start + 5}"] = Conv(checkpoint, f"decoder.{start + 5}")
    last = f"{_LAST_DECODER_LAYER}"
    return nn.ModuleDict({**layers, last: Conv(checkpoint, f"decoder.{last}", activation="before")})


def _encoder_reach(levels: int) -> int:
    """Patches on each side that a latent sees beyond its own."""
    reach = 1
    for _ in range(levels):
        reach = 2 * (reach + 3 * _MEMORY_BLOCK_REACH) + 1
    return reach + 1


def _decoder_reach(levels: int) -> int:
    """Latents on each side that a pixel sees beyond its own."""
    reach = 1
    for _ in range(levels):
        reach = (reach + 2) // 2 + 3 * _MEMORY_BLOCK_REACH
    return reach + 1


def _values_held(layers: nn.ModuleDict, area: float) -> tuple[float, float]:
    """Numbers held per latent position: between frames, and at most beside them; area is the input's."""
    kept = busy = 0.0
    for layer in layers.values():
        out_channels, in_channels = next(layer.parameters()).shape[:2]
        kept += area * in_channels / 2 if isinstance(layer, MemoryBlock | TimePool) else 0
        area *= 4 if isinstance(layer, Grow) else 1
        busy = max(
            busy, area * 2 * (in_channels + out_channels if isinstance(layer, TimePool) else out_channels)
        )
        area /= 4 if isinstance(layer, Conv) and layer.stride == 2 else 1
    return kept, busy


def _check_strides(vae: TinyVae, checkpoint: Checkpoint) -> None:
    pool = grow = 1
    for layer in vae.modules():
        pool *= layer.stride if isinstance(layer, TimePool) else 1
        grow *= layer.stride if isinstance(layer, Grow) else 1
    if (pool, grow) != (TEMPORAL_STRIDE, TEMPORAL_STRIDE):
        raise ModelFileError(
            checkpoint.path,
            f"a tiny VAE with {pool} frames per latent in and {grow} out; expected 4, as in taew2_1",
        )
