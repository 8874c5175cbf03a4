"""Pictures at the ends of a video, encoded as image-to-video models take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..wanvideo.conditioning.geometry import VideoGeometry
from ..wanvideo.conditioning.image import ImageInput
from ..wanvideo.conditioning.known_frames import (
    GREY,
    KnownFrames,
    exaggerated,
    fitted_mask,
    mask_channels,
)
from ..wanvideo.conditioning.run_setup import resized
from ..wanvideo.conditioning.timed import Timed
from ..wanvideo.errors import InputError
from ..wanvideo.vae import Tiling, latent_space_for
from .embeds import latent_in_time
from .host import resize_images
from .video_vae import VideoVae, augment, check_channels

Say = Callable[[str], None]


@dataclass(frozen=True)
class LatentChanges:
    """What is done to the encoded pictures, in the space the model sees.

    Args:
        start: factor on the first latent frame.
        end: factor on the last latent frame.
        exaggeration: see ``known_frames.exaggerated``.
    """

    start: float = 1.0
    end: float = 1.0
    exaggeration: float = 0.0

    def applied(self, latent: Tensor, mask: Tensor) -> Tensor:
        """``[1, C, T, h, w]``, un-normalised, with its mask ``[1, 4, T, h, w]``."""
        if self == LatentChanges():
            return latent
        space = latent_space_for(latent.shape[1])
        seen = space.normalise(latent)
        seen[:, :, :1] *= self.start
        seen[:, :, -1:] *= self.end
        if self.exaggeration:
            seen = exaggerated(seen, mask, self.exaggeration)
        return space.denormalise(seen)


@dataclass(frozen=True)
class KnownPictures:
    """What is known of a video, as it was given.

    Args:
        start: first frames ``[k, H, W, C]`` in [0, 1].
        end: last frames.
        mask: ``[M, H, W]``, 1 where the video is known; replaces the mask of start and end.
        padding: shown where nothing is known, instead of grey.
        references: a LATENT to put in front of the video.
        is_end_in_video: the end image is the last frame; else, beside a start image, one more.
        is_tiled: encode in tiles.
        noise: strength of the noise added to start and end.
        contrast: factor on the distance of start and end from grey.
        changes: of the latent.
    """

    start: Tensor | None = None
    end: Tensor | None = None
    mask: Tensor | None = None
    padding: Tensor | None = None
    references: Mapping[str, Any] | None = None
    is_end_in_video: bool = True
    is_tiled: bool = False
    noise: float = 0.0
    contrast: float = 1.0
    changes: LatentChanges = LatentChanges()

    def encoded(self, vae: VideoVae, geometry: VideoGeometry, say: Say) -> ImageInput:
        """As an input of the model.

        Args:
            vae: encodes.
            geometry: of the video.
            say: given a sentence for whatever is cut or resized.

        Raises:
            InputError: pictures, a mask or latents that cannot be used.
        """
        known = self._frames(geometry, say)
        mask = self._mask(known, geometry)
        latent = self._latent(known, mask, geometry, vae)
        channels = mask_channels(mask, is_last_alone=known.is_last_alone)
        count = 0
        if self.references is not None:
            references = _fitted_references(self.references, geometry, vae, say)
            count = references.shape[2]
            latent = torch.cat([references, latent], dim=2)
            channels = functional.pad(channels, (0, 0, 0, 0, count, 0), value=1.0)
        return ImageInput(
            Timed(self.changes.applied(latent, channels)),
            Timed(channels),
            is_last_alone=known.is_last_alone,
            reference_frames=count,
        )

    def _frames(self, geometry: VideoGeometry, say: Say) -> KnownFrames:
        known, cut = KnownFrames(
            geometry.frames,
            _fitted(self.start, geometry, "start_image"),
            _fitted(self.end, geometry, "end_image"),
            is_last_alone=self.start is not None and self.end is not None and not self.is_end_in_video,
        ).cut()
        for sentence in cut:
            say(sentence)
        return known.changed(lambda images: GREY + self.contrast * (augment(images, self.noise) - GREY))

    def _mask(self, known: KnownFrames, geometry: VideoGeometry) -> Tensor:
        size = (geometry.latent_height, geometry.latent_width)
        return known.mask(size) if self.mask is None else fitted_mask(self.mask, known.total, size)

    def _latent(self, known: KnownFrames, mask: Tensor, geometry: VideoGeometry, vae: VideoVae) -> Tensor:
        padding = _fitted(self.padding, geometry, "empty_frame_pad_image")
        video = known.video((geometry.height, geometry.width), mask=mask, padding=padding)
        tiling = _half_tiles(geometry) if self.is_tiled else None
        latent = vae.encode(video[: geometry.frames], tiling=tiling)
        if not known.is_last_alone:
            return latent
        return torch.cat([latent, vae.encode(video[geometry.frames :], tiling=tiling)], dim=2)


def _fitted(images: Tensor | None, geometry: VideoGeometry, input_name: str) -> Tensor | None:
    """Pictures ``[F, H, W, C]`` stretched to the size of the video, without alpha."""
    if images is None:
        return None
    if images.ndim != 4 or images.shape[-1] < 3 or not images.shape[0]:
        raise InputError(input_name, f"expected pictures [F, H, W, 3], got {tuple(images.shape)}")
    images = images[..., :3].float().cpu()
    if images.shape[1:3] == (geometry.height, geometry.width):
        return images
    return resize_images(images, geometry.width, geometry.height, crop=False)


def _fitted_references(
    samples: Mapping[str, Any], geometry: VideoGeometry, vae: VideoVae, say: Say
) -> Tensor:
    """Latents ``[1, C, T, h, w]`` in the size of the video."""
    latent = latent_in_time(samples, "extra_latents")
    check_channels(vae, latent, input_name="extra_latents")
    latent = latent.float().cpu()
    size = (geometry.latent_height, geometry.latent_width)
    if latent.shape[-2:] == size:
        return latent
    height, width = (side * geometry.spatial_stride for side in latent.shape[-2:])
    say(
        f"extra_latents were made for {width}x{height}: resized to {geometry.width}x{geometry.height}",
    )
    return resized(latent, size)


def _half_tiles(geometry: VideoGeometry) -> Tiling:
    """Tiles of half the picture each way, half of each overlapping the next."""
    width, height = geometry.width // 2, geometry.height // 2
    return Tiling(width, height, width // 2, height // 2)
