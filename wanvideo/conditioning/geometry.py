"""The size of a video in pixels, latents and tokens, computed once and carried with the conditioning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from ..errors import InputError

TEMPORAL_STRIDE = 4
SPATIAL_STRIDE = 8  # pixels per latent of the Wan 2.1 VAE
SPATIAL_STRIDES = MappingProxyType({16: SPATIAL_STRIDE, 48: 16})  # by channels of the latent; 48: Wan 2.2 VAE
PATCH_SIZE = (1, 2, 2)  # frames, rows, columns of latents that make one token


@dataclass(frozen=True)
class VideoGeometry:
    """Size of a video for a VAE stride.

    Args:
        width: pixels, a multiple of ``2 * spatial_stride``.
        height: pixels, a multiple of ``2 * spatial_stride``.
        frames: pixel frames, ``4n + 1``.
        spatial_stride: pixels per latent: 8 for the Wan 2.1 VAE, 16 for the Wan 2.2 5B VAE.

    Raises:
        InputError: when a size is not one the model can make; :meth:`snapped` rounds instead.
    """

    width: int
    height: int
    frames: int
    spatial_stride: int = 8

    def __post_init__(self) -> None:
        unit = self.pixel_multiple
        for name, value in (("width", self.width), ("height", self.height)):
            if value < unit or value % unit:
                raise InputError(name, f"{value} is not a multiple of {unit}; use {snap_size(value, unit)}")
        if self.frames < 1 or (self.frames - 1) % TEMPORAL_STRIDE:
            raise InputError("frames", f"{self.frames} is not 4n+1; use {snap_frames(self.frames)}")

    @property
    def pixel_multiple(self) -> int:
        """Width and height must be multiples of this many pixels."""
        return self.spatial_stride * PATCH_SIZE[1]

    @property
    def latent_frames(self) -> int:
        """Frames of the latent: 1 for the first pixel frame, then one per four."""
        return (self.frames - 1) // TEMPORAL_STRIDE + 1

    @property
    def latent_height(self) -> int:
        """Rows of the latent."""
        return self.height // self.spatial_stride

    @property
    def latent_width(self) -> int:
        """Columns of the latent."""
        return self.width // self.spatial_stride

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens."""
        return (
            self.latent_frames // PATCH_SIZE[0],
            self.latent_height // PATCH_SIZE[1],
            self.latent_width // PATCH_SIZE[2],
        )

    @property
    def tokens(self) -> int:
        """Number of video tokens in the sequence."""
        frames, rows, columns = self.token_grid
        return frames * rows * columns

    def latent_shape(self, channels: int, batch: int = 1) -> tuple[int, int, int, int, int]:
        """``(batch, channels, T, H, W)`` of the latent."""
        return (batch, channels, self.latent_frames, self.latent_height, self.latent_width)

    @classmethod
    def snapped(
        cls, width: int, height: int, frames: int, *, spatial_stride: int = 8
    ) -> tuple[VideoGeometry, list[str]]:
        """The nearest geometry at or below the request, and a sentence per changed value.

        Sizes below one unit are raised to one unit. The sentences are for the log and the node's
        live text: a size is never changed silently.
        """
        unit = spatial_stride * PATCH_SIZE[1]
        geometry = cls(snap_size(width, unit), snap_size(height, unit), snap_frames(frames), spatial_stride)
        changes: list[str] = []
        for name, asked, used in (("width", width, geometry.width), ("height", height, geometry.height)):
            if asked != used:
                changes.append(f"{name} {asked} is not a multiple of {unit}: rounded to {used}")
        if frames != geometry.frames:
            changes.append(f"num_frames {frames} is not 4n+1: rounded to {geometry.frames}")
        return geometry, changes

    def for_stride(self, spatial_stride: int) -> tuple[VideoGeometry, list[str]]:
        """This size fitted to another VAE stride, and a sentence per changed value."""
        if spatial_stride == self.spatial_stride:
            return self, []
        return VideoGeometry.snapped(self.width, self.height, self.frames, spatial_stride=spatial_stride)

    def with_latent_frames(self, latent_frames: int) -> VideoGeometry:
        """The same picture size with another number of latent frames."""
        return replace(self, frames=(latent_frames - 1) * TEMPORAL_STRIDE + 1)


def spatial_stride_of(latent_channels: int) -> int:
    """Pixels per latent of the VAE whose latents have so many channels; that of Wan 2.1 if none has."""
    return SPATIAL_STRIDES.get(latent_channels, SPATIAL_STRIDE)


def snap_size(pixels: int, unit: int) -> int:
    """The largest multiple of ``unit`` not above ``pixels``, at least one unit."""
    return max(unit, pixels // unit * unit)


def snap_frames(frames: int) -> int:
    """The largest ``4n + 1`` not above ``frames``, at least 1."""
    return max(1, (frames - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1)
