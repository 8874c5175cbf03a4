"""UltraViCo: longer videos than the model was trained on, without repetition (arXiv:2511.20123).

Positive scores between tokens further apart than half the trained length are multiplied by a constant
below one, so that far frames do not dilute the attention the model has learned. The first frame does not
see keys beyond the trained length at all. Distances are counted in tokens, as the authors do for Wan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .backend import LayoutAttention, TokenLayout, is_installed
from .block_sparse import compiled_flex
from .sdpa import sdpa
from .self_test import device_name, kernel_errors, random_inputs

TRAINED_FRAMES = 21  # latent frames: 81 video frames
SCORE_BYTES = 2**28  # of one chunk of scores
TOLERANCE = 0.02

DecayFunction = Callable[[Tensor, Tensor, Tensor, TokenLayout, float, int], Tensor]
"""``(query, key, value, layout, alpha, trained frames) -> [B, L, N * K]``."""


@dataclass(frozen=True)
class UltraVicoAttention(LayoutAttention):
    """Attention that fades beyond the trained length.

    Args:
        alpha: factor on positive scores beyond half the trained length, 0 to 1; 1 changes nothing there.
        function: computes it.
        trained_frames: latent frames the model was trained on.
    """

    alpha: float
    function: DecayFunction
    trained_frames: int = TRAINED_FRAMES

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layout: TokenLayout) -> Tensor:
        """See :class:`LayoutAttention`."""
        if 2 * layout.grid[0] <= self.trained_frames:  # no two tokens are half the trained length apart
            return sdpa(query, key, value)
        return self.function(query, key, value, layout, self.alpha, self.trained_frames)


def fade(scores: Tensor, row: Tensor, column: Tensor, limits: Tensor, alpha: Tensor) -> Tensor:
    """The rule, on scores of any shape that ``row`` and ``column`` broadcast to.

    Everything is a tensor, so that a compiled function serves every size and every alpha.

    Args:
        scores: before softmax.
        row: sequence index of the query.
        column: index of the key; beyond the video nothing fades.
        limits: of :func:`limits_of`.
        alpha: ``[1]``, see :class:`UltraVicoAttention`.
    """
    start, stop, far, first_stop, trained_stop = (limits[index] for index in range(5))
    in_video = (row >= start) & (row < stop) & (column >= start) & (column < stop)
    is_far = in_video & (2 * (row - column).abs() > far)
    is_cut = in_video & (row < first_stop) & (column >= trained_stop)
    faded = torch.where(is_far & (scores > 0), scores * alpha[0], scores)
    return torch.where(is_cut, -float("inf"), faded)


def limits_of(layout: TokenLayout, trained_frames: int, device: torch.device) -> Tensor:
    """``[5]``: first token of the video and one past the last, tokens of the trained length, one past the
    first frame, one past the trained length.
    """
    trained = layout.frame_tokens * trained_frames
    values = (
        layout.start,
        layout.stop,
        trained,
        layout.start + layout.frame_tokens,
        layout.start + trained,
    )
    return torch.tensor(values, device=device)


def attend_rows(
    query: Tensor, key: Tensor, value: Tensor, layout: TokenLayout, alpha: float, trained_frames: int
) -> Tensor:
    """In float32, a chunk of query rows after the other; runs everywhere."""
    scale = query.shape[-1] ** -0.5
    keys = key.permute(0, 2, 3, 1).float()
    values = value.transpose(1, 2).float()
    column = torch.arange(key.shape[1], device=key.device)
    limits, factor = limits_of(layout, trained_frames, key.device), torch.tensor([alpha], device=key.device)
    rows = max(1, SCORE_BYTES // (4 * key.shape[0] * key.shape[1] * key.shape[2]))
    outputs = []
    for first in range(0, query.shape[1], rows):
        part = query[:, first : first + rows].transpose(1, 2).float()
        row = torch.arange(first, first + part.shape[2], device=key.device)[:, None]
        scores = fade(part @ keys * scale, row, column, limits, factor)
        outputs.append((scores.softmax(-1) @ values).transpose(1, 2))
    return torch.cat(outputs, dim=1).flatten(2).to(query.dtype)


def attend_flex(flex: Callable[..., Any]) -> DecayFunction:
    """Through ``flex_attention``; ``flex`` is that function, compiled or (for tests) not."""

    def attend(
        query: Tensor, key: Tensor, value: Tensor, layout: TokenLayout, alpha: float, trained_frames: int
    ) -> Tensor:
        limits = limits_of(layout, trained_frames, query.device)
        factor = torch.tensor([alpha], device=query.device)

        def score_mod(score: Tensor, _b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
            return fade(score, row, column, limits, factor)

        heads_first = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return flex(*heads_first, score_mod=score_mod).transpose(1, 2).flatten(2)

    return attend


def ultravico_function(device: torch.device, dtype: torch.dtype) -> tuple[DecayFunction, str]:
    """The fastest way that works on a device, and its name."""
    return _chosen(str(device), device_name(device), dtype)


@lru_cache(maxsize=8)
def _chosen(device: str, _name: str, dtype: torch.dtype) -> tuple[DecayFunction, str]:
    here = torch.device(device)
    if here.type == "cuda" and is_installed("triton") and _works(here, dtype):
        return attend_flex(compiled_flex()), "flex_attention"
    return attend_rows, "PyTorch per chunk of rows"


def _works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether compiled ``flex_attention`` agrees with :func:`attend_rows`."""
    layout, trained_frames = TokenLayout((6, 10, 10)), 3
    inputs = random_inputs(600, 600, device, dtype)
    try:
        found = attend_flex(compiled_flex())(*inputs, layout, 0.5, trained_frames).float()
    except kernel_errors():
        return False
    query, key, value = (tensor.float() for tensor in inputs)
    expected = attend_rows(query, key, value, layout, 0.5, trained_frames)
    return ((found - expected).norm() / expected.norm()).item() <= TOLERANCE
