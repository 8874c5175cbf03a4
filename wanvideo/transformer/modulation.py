"""Time embedding and six-way modulation, with one row per distinct timestep.

Tokens of one run share a timestep; a plain video is one run. Runs are known on the host, so nothing
here waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..weights.linear import WanLinear
from .norms import PreparedLayerNorm

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


@dataclass(frozen=True)
class Modulation:
    """What the timestep does to one half of a block: a norm before it, and a gate behind it.

    Args:
        weight: ``[S, D]`` float32, one plus the scale of each distinct timestep.
        shift: ``[S, D]`` float32.
        gate: ``[S, D]`` float32.
        epsilon: of the norm.
    """

    weight: Tensor
    shift: Tensor
    gate: Tensor
    epsilon: float

    def norm(self, row: int) -> PreparedLayerNorm:
        """The modulated norm ``layer_norm(x) * (1 + scale) + shift`` of a row of the time table."""
        return PreparedLayerNorm(self.weight[row], self.shift[row], self.epsilon)


def block_modulation(parameter: Tensor, time: TimeTable, epsilon: float) -> tuple[Modulation, Modulation]:
    """Modulation of a block's self-attention, and of its feed-forward.

    Args:
        parameter: ``[1, 6, D]``: shift, scale and gate of the first, then of the second.
        time: the forward's time table.
        epsilon: of the norms.
    """
    rows = (parameter.float() + time.projection).unbind(1)
    first, second = (Modulation(1 + rows[i + 1], rows[i], rows[i + 2], epsilon) for i in (0, 3))
    return first, second
