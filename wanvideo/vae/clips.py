"""One clip through a VAE network: frame after frame, tile after tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .cache import FeatureCache
from .tiling import Tile

CPU = torch.device("cpu")


class FrameVae(Protocol):
    """A VAE network, frame by frame: ``shrink`` then ``settle`` encode, ``lift`` then ``render`` decode.

    ``shrink`` and ``render`` may run on tiles; ``shrink_margin`` and ``render_margin`` are the latents at a
    tile's border whose values are not exact then, ``shrink_values`` and ``render_values`` the numbers held
    per latent position: between frames, and beside them while a layer works. ``settle`` and ``lift`` need
    the whole frame.
    """

    latent_channels: int
    spatial_stride: int
    shrink_margin: int
    render_margin: int
    shrink_values: tuple[float, float]
    render_values: tuple[float, float]
    takes_normalised_latents: bool

    def frame_order(self, frames: int) -> Sequence[int]:
        """The pixel frames to feed to ``shrink``, in order."""
        ...

    def shrink(self, pixels: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """A frame ``[B, 3, H, W]`` in [-1, 1] -> features once a latent's worth of frames is in."""
        ...

    def settle(self, features: Tensor, cache: FeatureCache) -> Tensor:
        """Features -> a latent frame ``[B, C, h, w]``."""
        ...

    def lift(self, latent: Tensor, cache: FeatureCache) -> Tensor:
        """A latent frame ``[B, C, h, w]`` -> features."""
        ...

    def render(self, features: Tensor, cache: FeatureCache) -> Iterator[Tensor]:
        """Features -> the latent's pixel frames ``[B, 3, H, W]``."""
        ...


@dataclass(frozen=True)
class Pass:
    """How a pass over clips computes.

    Args:
        device: where.
        dtype: in what.
        check: called once per latent frame of a tile, and once more where the tiles are put together.
        use_cpu_cache: the earlier frames of the causal layers rest in host memory.
    """

    device: torch.device
    dtype: torch.dtype
    check: Callable[[], None]
    use_cpu_cache: bool

    def new_cache(self) -> FeatureCache:
        """An empty cache for one tile of one clip."""
        return FeatureCache(CPU if self.use_cpu_cache else None)

    def bring(self, x: Tensor) -> Tensor:
        """The tensor where and in what the pass computes."""
        return x.to(self.device, self.dtype)


def decode_clip(
    network: FrameVae, latent: Tensor, pixels: Tensor, *, tiles: Sequence[Tile], how: Pass
) -> None:
    """Fill ``pixels`` ``[1, 3, F, H, W]``, zeros on the CPU, from the latent ``[1, C, T, h, w]``."""
    lifted: Iterable[Tensor] = _lifted(network, latent, how)
    if len(tiles) > 1:  # every tile reads them all; they are small beside what a tile needs
        lifted = [_checked(features, how).to(CPU) for features in lifted]
    for tile in tiles:
        cache, index = how.new_cache(), 0
        for features in lifted:
            how.check()
            for frame in network.render(how.bring(tile.of(features)), cache):
                # The target lies as [F, H, W, 3]; in that order the copy to the host is one block.
                frame = frame.float().contiguous(memory_format=torch.channels_last)
                tile.put(frame, pixels[:, :, index], scale=network.spatial_stride)
                index += 1


def encode_clip(
    network: FrameVae, pixels: Tensor, latent: Tensor, *, tiles: Sequence[Tile], how: Pass
) -> None:
    """Fill ``latent`` ``[1, C, T, h, w]`` on the CPU from the pixels ``[1, 3, F, H, W]``."""
    if len(tiles) == 1:
        shrunk: Iterable[Tensor] = _shrunk(network, pixels, tiles[0], how)
    else:
        shrunk = _shrunk_in_tiles(network, pixels, latent.shape[2:], tiles, how)
    cache = how.new_cache()
    for index, features in enumerate(shrunk):
        how.check()
        latent[:, :, index].copy_(network.settle(how.bring(features), cache))


def _lifted(network: FrameVae, latent: Tensor, how: Pass) -> Iterator[Tensor]:
    cache = how.new_cache()
    for frame in latent.unbind(2):
        yield network.lift(how.bring(frame), cache)


def _checked(features: Tensor, how: Pass) -> Tensor:
    how.check()
    return features


def _shrunk(network: FrameVae, pixels: Tensor, tile: Tile, how: Pass) -> Iterator[Tensor]:
    cache = how.new_cache()
    for index in network.frame_order(pixels.shape[2]):
        frame = tile.of(pixels[:, :, index], scale=network.spatial_stride)
        yield from network.shrink(how.bring(frame), cache)


def _shrunk_in_tiles(
    network: FrameVae, pixels: Tensor, grid: torch.Size, tiles: Sequence[Tile], how: Pass
) -> list[Tensor]:
    """The features of the whole frame, fp32 on the CPU, one ``[1, C, h, w]`` per latent frame."""
    latent_frames, rows, columns = grid
    whole: list[Tensor] = []
    for tile in tiles:
        for index, features in enumerate(_shrunk(network, pixels, tile, how)):
            how.check()
            if index == len(whole):
                whole.append(torch.zeros(1, features.shape[1], rows, columns))
            tile.put(features, whole[index])
    assert len(whole) == latent_frames
    return whole
