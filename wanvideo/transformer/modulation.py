"""Time embedding and six-way modulation, with one row per distinct timestep.

Tokens of one run share a timestep; a plain video is one run. Runs are known on the host, so nothing
here waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.linear import WanLinear

MAX_PERIOD = 10_000.0


@dataclass(frozen=True)
class TokenRun:
    """Tokens ``start`` to ``stop`` (exclusive) of the sequence use row ``row`` of the time table."""

    start: int
    stop: int
    row: int


@dataclass(frozen=True)
class TimeTable:
    """Embeddings of the distinct timesteps of one forward.

    Args:
        embedding: ``[S, D]`` float32.
        projection: ``[S, 6, D]`` float32.
        runs: which tokens use which row, in order and without gaps.
    """

    embedding: Tensor
    projection: Tensor
    runs: tuple[TokenRun, ...]

    def for_slice(self, start: int, stop: int) -> TimeTable:
        """The table as seen by tokens ``start`` to ``stop`` of the sequence."""
        runs = tuple(
            TokenRun(max(run.start, start) - start, min(run.stop, stop) - start, run.row)
            for run in self.runs
            if run.start < stop and run.stop > start
        )
        return TimeTable(self.embedding, self.projection, runs)


def sinusoidal_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal features of continuous timesteps, cosine half first.

    Args:
        timesteps: ``[S]``, 0 to 1000.
        width: even number of features.

    Returns:
        ``[S, width]`` float32, computed in float64 (attention is all you need, section 3.5, in the
        arrangement of Wan2.1 ``wan/modules/model.py``).
    """
    half = width // 2
    frequencies = torch.exp(
        -math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float64, device="cpu") / half
    )
    angles = timesteps.to(dtype=torch.float64, device="cpu")[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


class TimeEmbedding(nn.Sequential):
    """Two linears with SiLU between, in float32; key names ``0`` and ``2``."""

    def __init__(self, frequency_width: int, width: int) -> None:
        super().__init__(WanLinear(frequency_width, width), nn.SiLU(), WanLinear(width, width))
        _keep_float32(self)


class TimeProjection(nn.Sequential):
    """SiLU and one linear to six rows, in float32; key name ``1``."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.SiLU(), WanLinear(width, 6 * width))
        _keep_float32(self)


def _keep_float32(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, WanLinear):
            layer.parameter_dtype = "fp32"


def block_rows(modulation: Tensor, time: TimeTable) -> tuple[Tensor, ...]:
    """The six float32 rows of a block: shift, scale and gate for attention, then for the feed-forward.

    Args:
        modulation: ``[1, 6, D]``.
        time: the forward's time table.

    Returns:
        Six tensors ``[S, D]``.
    """
    return (modulation.float() + time.projection).unbind(1)


def modulated_norm(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    runs: Sequence[TokenRun],
    epsilon: float,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """``layer_norm(x) * (1 + scale) + shift`` in float32, each run of tokens with its row.

    Args:
        x: ``[B, L, D]``.
        shift: ``[S, D]`` float32.
        scale: ``[S, D]`` float32.
        runs: cover all ``L`` tokens.
        epsilon: of the norm.
        dtype: of the result; that of ``x`` when not given.

    Returns:
        ``[B, L, D]``.
    """
    normed = F.layer_norm(x.float(), (x.shape[-1],), eps=epsilon)
    for run in runs:
        part = normed[:, run.start : run.stop]
        part.mul_(1 + scale[run.row]).add_(shift[run.row])
    return normed.to(dtype or x.dtype)


def gated_add(x: Tensor, update: Tensor, gate: Tensor, runs: Sequence[TokenRun]) -> Tensor:
    """``x + gate * update`` with the multiply-add in float32; the result has the dtype of ``x``."""
    if len(runs) == 1:
        return torch.addcmul(x.float(), update.float(), gate[runs[0].row]).to(x.dtype)
    parts = [
        torch.addcmul(
            x[:, run.start : run.stop].float(), update[:, run.start : run.stop].float(), gate[run.row]
        ).to(x.dtype)
        for run in runs
    ]
    return torch.cat(parts, dim=1)
