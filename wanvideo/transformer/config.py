"""Sizes of a Wan transformer, read from a checkpoint's tensor shapes."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_WIDTH = 128  # every released Wan model has heads of 128 channels


@dataclass(frozen=True)
class WanConfig:
    """Architecture of one Wan transformer.

    Args:
        dim: width of the token stream (1536, 3072, 5120).
        ffn_dim: inner width of the feed-forward layers.
        heads: attention heads, ``dim / 128``.
        layers: number of transformer blocks.
        in_channels: latent channels entering the patch embedding, conditions included.
        out_channels: latent channels of the prediction (16 or 48).
        text_width: width of the text encoder's rows (4096 for UMT5-XXL).
        frequency_width: width of the sinusoidal timestep features.
        text_length: rows the text is padded to; padding rows are attended like real ones.
        epsilon: of every norm but the two in the image projection.
        has_image_branch: cross-attention has keys and values for CLIP image tokens.
        image_width: width of the CLIP rows.
    """

    dim: int
    ffn_dim: int
    heads: int
    layers: int
    in_channels: int
    out_channels: int
    text_width: int = 4096
    frequency_width: int = 256
    text_length: int = 512
    epsilon: float = 1e-6
    has_image_branch: bool = False
    image_width: int = 1280
