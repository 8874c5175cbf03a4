"""Tokens of a reference picture before those of the video.

Source: VideoX-Fun, ``videox_fun/models/wan_transformer3d.py`` (``ref_conv``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from ...conditioning.geometry import PATCH_SIZE
from ...transformer.points import Grid
from ...transformer.rope import grid_positions
from ...transformer.segments import Segment
from .inputs import FUN_REFERENCE, FunReferenceInput


class ReferenceEmbedding(nn.Conv2d):
    """One token per 2x2 latents of a picture (``ref_conv``), stored and computed in the compute dtype.

    A file that stores it in 8 bit is decoded when it is loaded.

    Args:
        latent_channels: of the VAE.
        width: of the token stream.
    """

    parameter_dtype = "compute"

    def __init__(self, latent_channels: int, width: int) -> None:
        super().__init__(latent_channels, width, kernel_size=PATCH_SIZE[1:], stride=PATCH_SIZE[1:])

    def tokens(self, latent: Tensor) -> Tensor:
        """``[1, C, h, w] -> [1, h/2 * w/2, D]``, rows slowest."""
        return self(latent.to(self.weight.dtype)).flatten(2).transpose(1, 2)


class ReferenceTokens:
    """A segment before the video: one frame in time before its first, at the video's noise level.

    Where frames have timesteps of their own, it is that of the last.
    """

    role: ClassVar[str] = FUN_REFERENCE

    def __init__(self, embedding: ReferenceEmbedding) -> None:
        self.embedding = embedding

    def segments(
        self, family_input: FunReferenceInput, grid: Grid, timesteps: Sequence[float]
    ) -> tuple[Sequence[Segment], Sequence[Segment]]:
        """See ``transformer.points.SegmentPoint``."""
        _, rows, columns = grid
        positions = grid_positions((1, rows, columns), offset=(-1, 0, 0))
        tokens = self.embedding.tokens(family_input.latent)
        return [Segment(tokens, positions, (timesteps[-1],), role=self.role)], []
