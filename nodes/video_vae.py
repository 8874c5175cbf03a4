"""One surface for the VAE of this pack and ComfyUI's, whichever is connected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from torch import Tensor

from ..wanvideo.conditioning.decode_plan import DecodePlan
from ..wanvideo.conditioning.geometry import snap_frames, snap_size
from ..wanvideo.errors import InputError
from ..wanvideo.vae import Tiling
from ..wanvideo.vae.latent_space import VAE_NAMES, described_vae
from ..wanvideo.vae.pixels import images_from_pixels, normalise_pixels, pixels_from_images, with_noise
from .host import (
    CoreVae,
    Progress,
    check_interrupt,
    evict,
    is_core_vae,
    is_out_of_memory,
    load,
    resize_images,
)
from .sockets import WanVAE

PATCH = 2  # latents per token along rows and columns
NOISE_SEED = 0


class VideoVae(Protocol):
    """Encodes pictures and decodes latents; latents are un-normalised, on the CPU."""

    @property
    def latent_channels(self) -> int:
        """Channels of its latents: 16 or 48."""
        ...

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent: 8 or 16."""
        ...

    def encode(self, images: Tensor, *, tiling: Tiling | None = None) -> Tensor:
        """``[F, H, W, 3]`` in [0, 1] -> ``[1, C, T, h, w]``."""
        ...

    def decode(
        self, latent: Tensor, *, tiling: Tiling | None = None, normalization: str = "default"
    ) -> Tensor:
        """``[B, C, T, h, w]`` -> ``[B * F, H, W, 3]``."""
        ...


@dataclass(frozen=True)
class PackVae:
    """The VAE of a WANVAE socket."""

    socket: WanVAE

    @property
    def latent_channels(self) -> int:
        """Channels of its latents."""
        return self.socket.vae.latent_channels

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent."""
        return self.socket.vae.spatial_stride

    def encode(self, images: Tensor, *, tiling: Tiling | None = None) -> Tensor:
        """See :class:`VideoVae`."""
        vae = self.socket.vae
        frames, height, width = images.shape[:3]
        shape = (
            1,
            vae.latent_channels,
            (frames - 1) // vae.temporal_stride + 1,
            height // vae.spatial_stride,
            width // vae.spatial_stride,
        )
        load(self.socket.managed, memory_required=vae.encode_bytes(shape, tiling))
        return vae.encode(
            pixels_from_images(images),
            tiling=tiling,
            device=self.socket.managed.load_device,
            check=_checked_progress(vae.steps(shape, tiling)),
            is_out_of_memory=is_out_of_memory,
        )

    def decode(
        self, latent: Tensor, *, tiling: Tiling | None = None, normalization: str = "default"
    ) -> Tensor:
        """See :class:`VideoVae`."""
        vae = self.socket.vae
        load(self.socket.managed, memory_required=vae.decode_bytes(latent.shape, tiling))
        pixels = vae.decode(
            latent.float(),
            tiling=tiling,
            device=self.socket.managed.load_device,
            check=_checked_progress(vae.steps(latent.shape, tiling)),
            is_out_of_memory=is_out_of_memory,
        )
        return images_from_pixels(pixels, normalization=normalization)


@dataclass(frozen=True)
class CoreVideoVae:
    """The VAE of a core VAE socket."""

    core: CoreVae

    @property
    def latent_channels(self) -> int:
        """Channels of its latents."""
        return self.core.latent_channels

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent."""
        return self.core.spatial_stride

    def encode(self, images: Tensor, *, tiling: Tiling | None = None) -> Tensor:
        """See :class:`VideoVae`."""
        return self.core.encode(images, tile=_core_tile(tiling)).float().cpu()

    def decode(
        self, latent: Tensor, *, tiling: Tiling | None = None, normalization: str = "default"
    ) -> Tensor:
        """See :class:`VideoVae`; values outside the normal range are cut off before ``normalization``."""
        images = self.core.decode(latent, tile=_core_tile(tiling)).float().cpu()
        return images if normalization == "default" else normalise_pixels(images * 2.0 - 1.0, normalization)


def _checked_progress(total: int) -> Callable[[], None]:
    """Called between frames and tiles: stops when the user asked for it, and moves the progress bar."""
    progress, done = Progress(total), count(1)

    def check() -> None:
        check_interrupt()
        progress.update(min(next(done), total))  # more steps than planned when memory ran out on the way

    return check


def as_video_vae(vae: object, *, input_name: str = "vae") -> VideoVae:
    """The common surface of what a WANVAE or VAE socket carries.

    Raises:
        InputError: nothing connected, or another kind of object.
    """
    if isinstance(vae, WanVAE):
        return PackVae(vae)
    if is_core_vae(vae):
        return CoreVideoVae(CoreVae(vae, input_name=input_name))
    if vae is None:
        raise InputError(input_name, "no VAE connected; connect a WanVideo VAE Loader or ComfyUI's Load VAE")
    raise InputError(input_name, f"expected a VAE, got {type(vae).__name__}")


def offload(vae: object) -> None:
    """Take a VAE, ours or ComfyUI's, off its device."""
    if isinstance(vae, WanVAE):
        evict(vae.managed)
    elif is_core_vae(vae):
        evict(vae.patcher)


def decode_video(
    vae: VideoVae,
    latent: Tensor,
    plan: DecodePlan,
    *,
    tiling: Tiling | None = None,
    normalization: str = "default",
) -> Tensor:
    """The pictures of the video in a latent ``[B, C, T, h, w]``.

    Leading frames are left out. So is an end image that was encoded alone: its picture would be the same as
    the one that was given, and no frame before it depends on it.

    Args:
        vae: decodes.
        latent: un-normalised.
        plan: of the latent; one for another number of frames is ignored.
        tiling: in pixels.
        normalization: see ``vae.pixels.normalise_pixels``.

    Raises:
        InputError: the plan leaves nothing.
    """
    frames = latent.shape[2]
    if plan.latent_frames in (0, frames):
        stop = frames - int(plan.is_last_alone)
        if plan.leading_frames >= stop:
            raise InputError(
                "samples", f"all {frames} latent frames are references, so there is no video to decode"
            )
        latent = latent[:, :, plan.leading_frames : stop]
    return vae.decode(latent, tiling=tiling, normalization=normalization)


def check_channels(vae: VideoVae, latent: Tensor, *, input_name: str = "samples") -> None:
    """Refuse a latent that another VAE made.

    Raises:
        InputError: wrong number of axes or of channels.
    """
    if latent.ndim != 5:
        raise InputError(
            input_name, f"expected a video latent [B, C, T, H, W], got a shape of {tuple(latent.shape)}"
        )
    channels = latent.shape[1]
    if channels != vae.latent_channels:
        fix = f"; it needs {described_vae(channels)}" if channels in VAE_NAMES else ""
        raise InputError(
            input_name,
            f"the latent has {channels} channels, the VAE connected to vae makes {vae.latent_channels}{fix}",
        )


def fit_images(vae: VideoVae, images: Tensor) -> tuple[Tensor, list[str]]:
    """Pictures with a size and number the model can use, and a sentence per change.

    Rows and columns become multiples of two latents by a lanczos resize: cutting instead would shift the
    picture against a mask or another picture of the same original size. Frames beyond the last 4n+1
    are dropped.

    Args:
        vae: decides the multiple, 16 or 32 pixels.
        images: ``[F, H, W, C]``.
    """
    changes: list[str] = []
    unit = vae.spatial_stride * PATCH
    frames, height, width = images.shape[:3]
    fitted = (snap_size(width, unit), snap_size(height, unit))
    if fitted != (width, height):
        changes.append(
            f"width {width} x height {height} is not a multiple of {unit}: resized to {fitted[0]}x{fitted[1]}"
        )
        images = resize_images(images, *fitted, crop=False)
    kept = snap_frames(frames)
    if kept != frames:
        changes.append(f"{frames} frames are not 4n+1: the last {frames - kept} dropped, {kept} kept")
        images = images[:kept]
    return images, changes


def augment(images: Tensor, strength: float) -> Tensor:
    """Pictures with noise of a fixed seed; ``strength`` is in units of the range [-1, 1]."""
    if not strength:
        return images
    pixels = with_noise(images[..., :3] * 2.0 - 1.0, strength, seed=NOISE_SEED)
    return (pixels + 1.0) / 2.0


def _core_tile(tiling: Tiling | None) -> tuple[int, int, int] | None:
    """Rows, columns and overlap; ComfyUI has one overlap for both axes, the larger one serves both."""
    if tiling is None:
        return None
    overlap = max(tiling.tile_x - tiling.tile_stride_x, tiling.tile_y - tiling.tile_stride_y)
    return tiling.tile_y, tiling.tile_x, overlap
