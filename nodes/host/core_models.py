"""ComfyUI's own VAE, CLIP, CONDITIONING and attention, in the shapes this pack uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import comfy.ldm.modules.attention as core_attention
import comfy.sd
from torch import Tensor

from ...wanvideo.errors import InputError


def is_core_vae(value: object) -> TypeGuard[comfy.sd.VAE]:
    """Whether ``value`` is what a VAE socket of ComfyUI carries."""
    return isinstance(value, comfy.sd.VAE)


def is_core_clip(value: object) -> TypeGuard[comfy.sd.CLIP]:
    """Whether ``value`` is what a CLIP socket of ComfyUI carries."""
    return isinstance(value, comfy.sd.CLIP)


class CoreVae:
    """A video VAE loaded by ComfyUI. It loads and evicts itself.

    Args:
        vae: from a VAE socket.
        input_name: the node input, for the message.

    Raises:
        InputError: not a VAE for videos.
    """

    def __init__(self, vae: comfy.sd.VAE, *, input_name: str = "vae") -> None:
        if vae.latent_dim != 3:
            raise InputError(input_name, "this VAE is not for videos; load a Wan 2.1 or Wan 2.2 VAE")
        self._vae = vae

    @property
    def latent_channels(self) -> int:
        """Channels of its latents."""
        return self._vae.latent_channels

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent."""
        return int(self._vae.spacial_compression_decode())  # pyright: ignore[reportArgumentType]

    def encode(self, images: Tensor, *, tile: tuple[int, int, int] | None = None) -> Tensor:
        """Pictures to a latent.

        Args:
            images: ``[F, H, W, 3]`` in [0, 1].
            tile: rows, columns and overlap of a tile in pixels.

        Returns:
            ``[1, C, T, h, w]``, un-normalised.
        """
        if tile is None:
            return self._vae.encode(images[..., :3])
        rows, columns, overlap = tile
        # ComfyUI's tile_x runs along the first spatial axis of a video, its rows.
        return self._vae.encode_tiled(images[..., :3], tile_x=rows, tile_y=columns, overlap=overlap)

    def decode(self, latent: Tensor, *, tile: tuple[int, int, int] | None = None) -> Tensor:
        """A latent to pictures.

        Args:
            latent: ``[B, C, T, h, w]``, un-normalised.
            tile: rows, columns and overlap of a tile in pixels.

        Returns:
            ``[B * F, H, W, 3]`` in [0, 1]; ComfyUI's VAE cuts off what lies outside.
        """
        if tile is None:
            images = self._vae.decode(latent)
        else:
            rows, columns, overlap = (max(1, pixels // self.spatial_stride) for pixels in tile)
            images = self._vae.decode_tiled(latent, tile_x=rows, tile_y=columns, overlap=overlap)
        return images.flatten(0, images.ndim - 4)


def encode_with_clip(clip: comfy.sd.CLIP, prompts: Sequence[str]) -> list[Tensor]:
    """Prompts through a CLIP socket's text encoder.

    Args:
        clip: from a CLIP socket.
        prompts: ComfyUI's own weight syntax applies.

    Returns:
        Per prompt ``[L, width]`` without padding.
    """
    return [
        rows_of_conditioning(clip.encode_from_tokens_scheduled(clip.tokenize(prompt)), input_name="t5")
        for prompt in prompts
    ]


def rows_of_conditioning(conditioning: object, *, input_name: str) -> Tensor:
    """The text rows of a CONDITIONING with one entry.

    ComfyUI pads to 512 rows of zeros after the text; they are cut off, as the transformer pads by itself.

    Returns:
        ``[L, width]``, at least one row.

    Raises:
        InputError: no text inside, or several entries.
    """
    if not isinstance(conditioning, list) or not conditioning:
        raise InputError(input_name, "this CONDITIONING is empty; connect a CLIP Text Encode node")
    if len(conditioning) > 1:
        raise InputError(
            input_name,
            f"this CONDITIONING is a combination of {len(conditioning)} parts, expected one; to spread "
            "several prompts over the video write them in WanVideo TextEncode, separated by |",
        )
    rows = conditioning[0][0]
    if not isinstance(rows, Tensor) or rows.ndim != 3:
        raise InputError(input_name, "this CONDITIONING holds no text embeds [1, tokens, width]")
    return without_padding(rows[0])


def without_padding(rows: Tensor) -> Tensor:
    """``[L, width]`` up to the last row that is not all zeros, at least one row."""
    filled = rows.ne(0).any(dim=1).nonzero()
    return rows[: int(filled[-1]) + 1 if len(filled) else 1]


def comfy_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The attention function ComfyUI was started with.

    Args:
        query: ``[B, L, N, K]``.
        key: ``[B, M, N, K]``.
        value: ``[B, M, N, K]``.

    Returns:
        ``[B, L, N * K]``.
    """
    heads = query.shape[2]
    return core_attention.optimized_attention(query.flatten(2), key.flatten(2), value.flatten(2), heads=heads)
