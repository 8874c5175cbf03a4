"""Latents to tokens and tokens to latents."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..conditioning.geometry import PATCH_SIZE
from ..weights.linear import WanLinear
from .chunking import RowBuffer, pieces
from .modulation import TimeTable
from .norms import PreparedLayerNorm


class PatchEmbedding(nn.Module):
    """One token per 1x2x2 latents: a convolution whose stride is its kernel, in float32."""

    parameter_dtype = "fp32"

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, in_channels, *PATCH_SIZE), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(width), requires_grad=False)

    def forward(self, latent: Tensor) -> Tensor:
        """``[B, C, T, H, W] -> [B, T, H/2, W/2, D]`` in float32.

        A latent with fewer channels than the weights have is one whose last channels are zero: a reference
        latent without the conditions that belong to the video.
        """
        tokens = F.conv3d(latent.float(), self.weight[:, : latent.shape[1]], self.bias, stride=PATCH_SIZE)
        return tokens.movedim(1, -1)


class Head(nn.Module):
    """Final modulated norm and projection to latent patches, in float32."""

    parameter_dtype = "fp32"

    def __init__(self, width: int, out_channels: int, epsilon: float) -> None:
        super().__init__()
        patch = PATCH_SIZE[0] * PATCH_SIZE[1] * PATCH_SIZE[2]
        self.head = WanLinear(width, patch * out_channels)
        self.head.parameter_dtype = "fp32"
        self.modulation = nn.Parameter(torch.empty(1, 2, width), requires_grad=False)
        self.epsilon = epsilon

    def forward(self, tokens: Tensor, time: TimeTable) -> Tensor:
        """``[B, L, D] -> [B, L, 4 C]`` in float32. Modulated by the time embedding, not its projection."""
        rows = self.modulation.float() + time.embedding.unsqueeze(1)  # [S, 2, D]
        head = self.head.prepare(torch.float32)
        patches = RowBuffer(tokens.shape[0], tokens.shape[1])
        for member, run in product(range(tokens.shape[0]), time.runs):
            norm = PreparedLayerNorm(1 + rows[run.row, 1], rows[run.row, 0], self.epsilon)
            for part in pieces(run.stop - run.start):
                start = run.start + part.start
                values = tokens[member, start : run.start + part.stop]
                patches.put(member, start, head(norm(values, torch.float32)))
        return patches.tensor


def unpatchify(patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Token patches back to a latent.

    Args:
        patches: ``[B, L, 4 C]``; the values of a token are ordered (frame, row, column, channel).
        grid: frames, rows and columns of tokens; their product is ``L``.

    Returns:
        ``[B, C, T, H, W]``.
    """
    batch, frames, rows, columns = patches.shape[0], *grid
    split = patches.reshape(batch, frames, rows, columns, *PATCH_SIZE, -1)
    joined = split.permute(0, 7, 1, 4, 2, 5, 3, 6)
    channels = joined.shape[1]
    return joined.reshape(
        batch, channels, frames * PATCH_SIZE[0], rows * PATCH_SIZE[1], columns * PATCH_SIZE[2]
    )
