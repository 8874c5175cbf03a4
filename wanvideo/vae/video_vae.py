"""A video VAE as the rest of the pack uses it: whole clips, un-normalised latents, tiles, progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..weights.residency import Residency
from .clips import FrameVae, Pass, decode_clip, encode_clip
from .latent_space import LatentSpace
from .tiling import LatentGrid, Tile, Tiling, described, retry_in_smaller_tiles

logger = logging.getLogger(__name__)

TEMPORAL_STRIDE = 4
COLOURS = 3
MEMORY_RESERVE = 1.25  # counted tensors are 0.92 to 1.01 of the measured ones; libraries allocate too


def nothing_to_check() -> None:
    """The default of ``check``."""


def never(_error: BaseException) -> bool:
    """The default of ``is_out_of_memory``."""
    return False


class VideoVAE:
    """Encodes and decodes clips with a VAE network; holds weights and settings, no state of a run.

    Latents go in and come out un-normalised, whatever the network works on.

    Args:
        network: a module that is also a :class:`FrameVae`, with its weights, on the CPU.
        latent_space: of the Wan VAE the latents belong to.
        name: for messages, "Wan 2.1 VAE".
        use_cpu_cache: keep the earlier frames of the causal layers in host memory between two frames; they
            are most of the memory a decode needs, and the copies cost time.
        verbose: log each run at INFO instead of DEBUG.
    """

    temporal_stride = TEMPORAL_STRIDE

    def __init__(
        self,
        network: FrameVae,
        *,
        latent_space: LatentSpace,
        name: str,
        use_cpu_cache: bool = False,
        verbose: bool = False,
    ) -> None:
        assert isinstance(network, nn.Module)
        self.module: nn.Module = network
        self.residency = Residency(network)
        self.latent_space = latent_space
        self.name = name
        self._network: FrameVae = network
        self._use_cpu_cache = use_cpu_cache
        self._log_level = logging.INFO if verbose else logging.DEBUG

    @property
    def latent_channels(self) -> int:
        """Channels of the latent: 16 (Wan 2.1) or 48 (Wan 2.2)."""
        return self._network.latent_channels

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent in height and width: 8 (Wan 2.1) or 16 (Wan 2.2)."""
        return self._network.spatial_stride

    @property
    def dtype(self) -> torch.dtype:
        """What the VAE computes in."""
        return next(self.module.parameters()).dtype

    def steps(self, latent_shape: Sequence[int], tiling: Tiling | None) -> int:
        """How often ``check`` is called for a latent of this shape, either way, if memory suffices."""
        batch, _, latent_frames, rows, columns = latent_shape
        tiles = len(self._grid(rows, columns, margin=0).tiles(tiling))
        return batch * latent_frames * (tiles if tiles == 1 else tiles + 1)

    def decode_bytes(self, latent_shape: Sequence[int], tiling: Tiling | None = None) -> int:
        """About the device memory that decoding a latent of this shape needs beside the weights."""
        return self._bytes(self._network.render_values, latent_shape, tiling)

    def encode_bytes(self, latent_shape: Sequence[int], tiling: Tiling | None = None) -> int:
        """About the device memory that encoding to a latent of this shape needs beside the weights."""
        return self._bytes(self._network.shrink_values, latent_shape, tiling)

    @torch.no_grad()
    def encode(
        self,
        pixels: Tensor,
        *,
        device: torch.device | str,
        tiling: Tiling | None = None,
        check: Callable[[], None] = nothing_to_check,
        is_out_of_memory: Callable[[BaseException], bool] = never,
    ) -> Tensor:
        """Pixels ``[B, 3, F, H, W]`` in [-1, 1] -> un-normalised latent ``[B, C, T, H/s, W/s]``, fp32, CPU.

        Args:
            pixels: F is 4n + 1, H and W are multiples of :attr:`spatial_stride`; each clip of the batch is
                encoded on its own.
            device: where to compute; the weights are brought there and stay.
            tiling: None for the whole frame. When memory runs out, smaller tiles are tried.
            check: called at least once per latent frame and tile; what it raises ends the run.
            is_out_of_memory: says yes to errors that mean it besides ``torch.OutOfMemoryError``.

        Returns:
            The mean of the distribution, as the official pipelines use it.

        Raises:
            InputError: the shape is none the VAE can encode.
        """
        self._check_pixels(pixels)
        batch, _, frames, height, width = pixels.shape
        grid = self._grid(
            height // self.spatial_stride, width // self.spatial_stride, margin=self._network.shrink_margin
        )
        shape = (batch, self.latent_channels, (frames - 1) // TEMPORAL_STRIDE + 1, grid.rows, grid.columns)

        def run(tiles: list[Tile]) -> Tensor:
            latent = torch.empty(shape)
            for clip, target in zip(pixels.split(1), latent.split(1), strict=True):
                encode_clip(self._network, clip, target, tiles=tiles, how=self._pass(device, check))
            return latent

        with self._logged(f"encoding {tuple(pixels.shape)}", tiling, device):
            latent = retry_in_smaller_tiles(
                run, tiling, grid, device=torch.device(device), is_out_of_memory=is_out_of_memory
            )
        return self.latent_space.denormalise(latent) if self._network.takes_normalised_latents else latent

    @torch.no_grad()
    def decode(
        self,
        latent: Tensor,
        *,
        device: torch.device | str,
        tiling: Tiling | None = None,
        check: Callable[[], None] = nothing_to_check,
        is_out_of_memory: Callable[[BaseException], bool] = never,
    ) -> Tensor:
        """Un-normalised latent ``[B, C, T, h, w]`` -> pixels ``[B, 3, 4(T-1)+1, h*s, w*s]``, fp32, CPU.

        Args:
            latent: each clip of the batch is decoded on its own.
            device: where to compute; the weights are brought there and stay.
            tiling: None for the whole frame. When memory runs out, smaller tiles are tried.
            check: called at least once per latent frame and tile; what it raises ends the run.
            is_out_of_memory: says yes to errors that mean it besides ``torch.OutOfMemoryError``.

        Returns:
            Nominally in [-1, 1], not clamped. They lie in memory as ``[B, F, H, W, 3]``, so that the way to
            ComfyUI's IMAGE needs no reordering.

        Raises:
            InputError: the shape is none the VAE can decode.
        """
        self._check_latent(latent)
        if self._network.takes_normalised_latents:
            latent = self.latent_space.normalise(latent)
        batch, _, latent_frames, rows, columns = latent.shape
        grid = self._grid(rows, columns, margin=self._network.render_margin)
        frames = (latent_frames - 1) * TEMPORAL_STRIDE + 1
        shape = (batch, frames, rows * self.spatial_stride, columns * self.spatial_stride, COLOURS)

        def run(tiles: list[Tile]) -> Tensor:
            pixels = torch.zeros(shape).permute(0, 4, 1, 2, 3)
            for clip, target in zip(latent.split(1), pixels.split(1), strict=True):
                decode_clip(self._network, clip, target, tiles=tiles, how=self._pass(device, check))
            return pixels

        with self._logged(f"decoding {tuple(latent.shape)}", tiling, device):
            return retry_in_smaller_tiles(
                run, tiling, grid, device=torch.device(device), is_out_of_memory=is_out_of_memory
            )

    def _pass(self, device: torch.device | str, check: Callable[[], None]) -> Pass:
        self.residency.load(device)
        return Pass(torch.device(device), self.dtype, check, self._use_cpu_cache)

    def _bytes(self, values: tuple[float, float], latent_shape: Sequence[int], tiling: Tiling | None) -> int:
        tile = self._grid(*latent_shape[-2:], margin=0).tiles(tiling)[0]
        kept, busy = values
        held = busy if self._use_cpu_cache else kept + busy
        positions = (tile.rows.stop - tile.rows.start) * (tile.columns.stop - tile.columns.start)
        return round(held * positions * self.dtype.itemsize * MEMORY_RESERVE)

    def _grid(self, rows: int, columns: int, *, margin: int) -> LatentGrid:
        return LatentGrid(rows, columns, self.spatial_stride, margin)

    def _check_pixels(self, pixels: Tensor) -> None:
        if pixels.ndim != 5 or pixels.shape[1] != COLOURS:
            raise InputError(
                "image", f"expected pixels [B, 3, F, H, W], got a shape of {tuple(pixels.shape)}"
            )
        _, _, frames, height, width = pixels.shape
        if frames < 1 or (frames - 1) % TEMPORAL_STRIDE:
            usable = max(1, (frames - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1)
            raise InputError(
                "image", f"{frames} frames are not 4n+1, which the {self.name} needs; use {usable}"
            )
        for side, pixels_on_side in (("width", width), ("height", height)):
            if pixels_on_side < 1 or pixels_on_side % self.spatial_stride:
                raise InputError(
                    "image",
                    f"a {side} of {pixels_on_side} is not a multiple of {self.spatial_stride}, "
                    f"which the {self.name} needs",
                )

    def _check_latent(self, latent: Tensor) -> None:
        if latent.ndim != 5:
            raise InputError(
                "samples", f"expected a video latent [B, C, T, H, W], got a shape of {tuple(latent.shape)}"
            )
        if latent.shape[1] != self.latent_channels:
            raise InputError(
                "vae",
                f"the {self.name} decodes latents of {self.latent_channels} channels, these have "
                f"{latent.shape[1]}; 16 channels belong to the Wan 2.1 VAE, 48 to the Wan 2.2 VAE of the 5B",
            )

    @contextmanager
    def _logged(self, what: str, tiling: Tiling | None, device: torch.device | str) -> Iterator[None]:
        logger.log(
            self._log_level, "%s: %s in %s on %s (%s)", self.name, what, described(tiling), device, self.dtype
        )
        start = time.perf_counter()
        yield
        logger.log(self._log_level, "%s: done in %.1f s", self.name, time.perf_counter() - start)
