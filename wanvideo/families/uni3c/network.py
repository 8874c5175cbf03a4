"""The Uni3C controlnet (https://github.com/ewrfcas/Uni3C, ``src/models/controlnet.py``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...transformer.attention import SelfAttention
from ...transformer.chunking import token_slices
from ...transformer.config import WanConfig
from ...transformer.context import BlockContext
from ...transformer.feed_forward import FeedForward
from ...transformer.modulation import Modulation
from ...transformer.norms import LayerNorm
from ...transformer.patches import PatchEmbedding
from ...weights.linear import WanLinear

HEAD_WIDTH = 64
NORM_EPSILON = 1e-5
MASK_CELL = (4, 8, 8)  # frames, rows and columns of the mask that make one latent
PATCH_CELL = (1, 2, 2)  # frames, rows and columns of latents that make one token
CHANNELS_PER_GROUP = 8  # of the mask embedding's group norm


@dataclass(frozen=True)
class Uni3CConfig:
    """Sizes, read from a file's tensor shapes.

    Args:
        main_width: width of the video transformer it belongs to.
        width: of its own blocks, a multiple of 64.
        ffn_width: inner width of its feed-forward layers.
        layers: number of its blocks.
        in_channels: noise, mask and render.
        mask_channels: the render mask, then the camera's rays.
        mask_width: inner width of the mask embedding.
    """

    main_width: int
    width: int
    ffn_width: int
    layers: int
    in_channels: int = 36
    mask_channels: int = 7
    mask_width: int = 256


class TimeNorm(nn.Module):
    """An affine layer norm, modulated by the time embedding, and a gate."""

    parameter_dtype = "compute"

    def __init__(self, main_width: int, width: int) -> None:
        super().__init__()
        self.linear = WanLinear(main_width, 3 * width)
        self.norm = LayerNorm(width, NORM_EPSILON)

    def modulation(self, embedding: Tensor) -> Modulation:
        """``norm(x) (1 + scale) + shift``, and the gate, for every row of the time table.

        Args:
            embedding: of the timesteps, before the main model's projection: ``[S, main_width]`` float32.
        """
        shift, scale, gate = self.linear(functional.silu(embedding)).chunk(3, dim=-1)
        weight = self.norm.weight * (1 + scale)
        return Modulation(weight, self.norm.bias * (1 + scale) + shift, gate, NORM_EPSILON)


class Uni3CBlock(nn.Module):
    """Self-attention and feed-forward; no text."""

    def __init__(self, config: Uni3CConfig, attention: WanConfig) -> None:
        super().__init__()
        self.norm1 = TimeNorm(config.main_width, config.width)
        self.self_attn = SelfAttention(attention)
        self.norm2 = TimeNorm(config.main_width, config.width)
        self.ffn = FeedForward(config.width, config.ffn_width)

    def forward(self, x: Tensor, context: BlockContext) -> Tensor:
        """``[B, L, width] -> [B, L, width]``; overwrites ``x``."""
        embedding = context.time.embedding
        self.self_attn.add_to(x, self.norm1.modulation(embedding), context)
        self.ffn.add_to(x, self.norm2.modulation(embedding), context)
        return x


class MaskEmbedding(nn.Module):
    """The render mask and the camera's rays as tokens of the main model's width, in float32."""

    parameter_dtype = "fp32"

    def __init__(self, config: Uni3CConfig) -> None:
        super().__init__()
        width = config.mask_width
        self.mask_proj = nn.Sequential(
            nn.Conv3d(config.mask_channels, width, MASK_CELL, stride=MASK_CELL),
            nn.GroupNorm(width // CHANNELS_PER_GROUP, width),
        )
        self.mask_zero_proj = nn.Conv3d(width, config.main_width, PATCH_CELL, stride=PATCH_CELL)

    def features(self, mask: Tensor) -> Tensor:
        """What of a mask is the same at every step.

        Args:
            mask: ``[1, c, 4 T, 8 h, 8 w]``, any dtype; channels it lacks are zero.

        Returns:
            ``[1, mask_width, T, h, w]`` float32.
        """
        cells, norm = self.mask_proj
        assert isinstance(cells, nn.Conv3d)
        weight = cells.weight[:, : mask.shape[1]]
        parts = [
            functional.conv3d(frame.float(), weight, cells.bias, stride=MASK_CELL)
            for frame in mask.split(MASK_CELL[0], dim=2)
        ]
        return functional.silu(norm(torch.cat(parts, dim=2)))

    def tokens(self, features: Tensor) -> Tensor:
        """``[1, mask_width, t, h, w] -> [1, t, h/2, w/2, main_width]`` for some frames."""
        return self.mask_zero_proj(features).movedim(1, -1)


class Uni3CNetwork(nn.Module):
    """Blocks beside those of the video transformer, each with a projection to its width.

    Args:
        config: sizes.
    """

    def __init__(self, config: Uni3CConfig) -> None:
        super().__init__()
        self.config = config
        attention = WanConfig(
            dim=config.width,
            ffn_dim=config.ffn_width,
            heads=config.width // HEAD_WIDTH,
            layers=config.layers,
            in_channels=config.in_channels,
            out_channels=config.in_channels,
        )
        self.controlnet_patch_embedding = PatchEmbedding(config.in_channels, config.main_width)
        self.controlnet_mask_embedding = MaskEmbedding(config)
        self.proj_in = WanLinear(config.main_width, config.width)
        self.controlnet_blocks = nn.ModuleList(Uni3CBlock(config, attention) for _ in range(config.layers))
        self.proj_out = nn.ModuleList(
            WanLinear(config.width, config.main_width) for _ in range(config.layers)
        )

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of its tokens: that of a bias, which is never quantised."""
        assert self.proj_in.bias is not None
        return self.proj_in.bias.dtype

    def embed(self, latent: Tensor, mask_features: Tensor | None, *, frames_at_once: int) -> Tensor:
        """Tokens that enter its first block.

        Args:
            latent: ``[B, in_channels, T, h, w]``: noise, mask and render.
            mask_features: see ``MaskEmbedding.features``.
            frames_at_once: latent frames embedded together; their tokens are as wide as the main model.

        Returns:
            ``[B, T h w / 4, width]``.
        """
        layer = self.proj_in.prepare(self.compute_dtype)
        parts: list[Tensor] = []
        for frames in token_slices(latent.shape[2], frames_at_once):
            tokens = self.controlnet_patch_embedding(latent[:, :, frames])
            if mask_features is not None:
                tokens = tokens + self.controlnet_mask_embedding.tokens(mask_features[:, :, frames])
            parts.append(layer(tokens.flatten(1, 3).to(self.compute_dtype).contiguous()))
        return torch.cat(parts, dim=1)

    def add_residual(self, index: int, tokens: Tensor, hidden: Tensor, *, strength: float, rows: int) -> None:
        """Add the result of block ``index`` to tokens of the main model, in place.

        Args:
            index: of the block.
            tokens: ``[B, L, main_width]``.
            hidden: tokens behind that block, ``[B, L, width]``.
            strength: factor on what is added.
            rows: tokens projected at once.
        """
        projection = self.proj_out[index]
        assert isinstance(projection, WanLinear)
        layer = projection.prepare(hidden.dtype)
        for part in token_slices(hidden.shape[1], rows):
            tokens[:, part].add_(layer(hidden[:, part]).to(tokens.dtype), alpha=strength)
