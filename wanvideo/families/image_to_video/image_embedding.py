"""CLIP rows to tokens of the transformer's width (``img_emb``; Wan2.1 ``wan/modules/model.py``, MLPProj)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...transformer.config import WanConfig
from ...transformer.norms import LayerNorm
from ...weights.linear import WanLinear

EPSILON = 1e-5  # of both norms; every other norm of the model has 1e-6


class _Gelu(nn.Module):
    """GELU by the error function; the blocks have its tanh form."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class ImageEmbedding(nn.Module):
    """Norm, linear, GELU, linear, norm; keys ``proj.0`` to ``proj.4``.

    Args:
        config: of the transformer.
        positions: rows of the table that is added first (``emb_pos``: 514 for the two pictures of models
            for first and last frame), 0 if there is none.
    """

    parameter_dtype = "fp32"

    def __init__(self, config: WanConfig, *, positions: int = 0) -> None:
        super().__init__()
        width = config.image_width
        self.proj = nn.Sequential(
            LayerNorm(width, EPSILON),
            WanLinear(width, width),
            _Gelu(),
            WanLinear(width, config.dim),
            LayerNorm(config.dim, EPSILON),
        )
        self.emb_pos: nn.Parameter | None = None
        if positions:
            self.emb_pos = nn.Parameter(torch.empty(1, positions, width), requires_grad=False)

    @property
    def takes_a_pair(self) -> bool:
        """Whether it has positions: two pictures are then one row of tokens."""
        return self.emb_pos is not None

    def forward(self, rows: Tensor) -> Tensor:
        """``[P, L, image_width] -> [P, L, D]`` in the dtype of the matrices' products.

        Rows beyond the table of positions have none; of fewer rows the first positions are used.
        """
        first, inner, activation, outer, last = self.proj
        assert isinstance(first, LayerNorm)
        assert isinstance(last, LayerNorm)
        assert isinstance(inner, WanLinear)
        assert inner.bias is not None
        rows = rows.to(inner.bias.device, torch.float32)
        if self.emb_pos is not None:
            count = min(rows.shape[1], self.emb_pos.shape[1])
            rows = rows + F.pad(self.emb_pos[:, :count].float(), (0, 0, 0, rows.shape[1] - count))
        shape = rows.shape[:2]
        hidden = first.prepare()(rows.flatten(0, 1), inner.bias.dtype)
        hidden = outer(activation(inner(hidden)))
        return last.prepare()(hidden).unflatten(0, shape)
