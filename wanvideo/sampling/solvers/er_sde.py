"""ER-SDE of order 3 (arXiv:2309.06169), in the variance-exploding form WanVideoWrapper ships.

On a rectified flow that form is not exact: after a step the signal has weight ``1 - r sigma`` instead of
``1 - sigma'``. It is kept because users compare results; ComfyUI's own ``er_sde`` is the flow form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..solver import Denoiser, Noise, Step, weighted

INTEGRATION_POINTS = 200


@dataclass(frozen=True)
class ERSDEState:
    """Memory of ER-SDE.

    Args:
        clean: clean estimate of the step before; None before the first step.
        slope: its first difference; None before the second step.
        sigmas: noise levels of the last two steps, newest first.
    """

    clean: Tensor | None = None
    slope: Tensor | None = None
    sigmas: tuple[float, ...] = ()


class ERSDE:
    """Stochastic, up to third order; the step to sigma 0 returns the clean estimate and draws no noise."""

    name = "er_sde"
    order = None

    def init(self, x: Tensor) -> ERSDEState:
        """Nothing remembered."""
        del x
        return ERSDEState()

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: ERSDEState, noise: Noise
    ) -> tuple[Tensor, ERSDEState]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        sigma, ahead = step.sigma, step.sigma_next
        clean = x - sigma * denoise(x, step.timestep)
        sigmas = (sigma, *state.sigmas)[:2]
        if ahead == 0.0:
            return clean, ERSDEState(clean, None, sigmas)
        ratio = _noise_scale(ahead) / _noise_scale(sigma)
        terms = [(ratio, x), (1.0 - ratio, clean)]
        slope = None
        if state.clean is not None:
            slope = (clean - state.clean) / (sigma - state.sigmas[0])
            first, second = _integrals(sigma, ahead)
            terms.append((first, slope))
            if state.slope is not None:
                bend = (slope - state.slope) / ((sigma - state.sigmas[1]) / 2.0)
                terms.append((second, bend))
        variance = ahead * ahead - (sigma * ratio) ** 2
        terms.append((math.sqrt(max(variance, 0.0)), noise()))
        return weighted(*terms), ERSDEState(clean, slope, sigmas)


def _noise_scale(sigma: float) -> float:
    return sigma * (math.exp(sigma**0.3) + 10.0)


def _integrals(sigma: float, ahead: float) -> tuple[float, float]:
    """Weights of the first and second difference, by a sum over the step."""
    change = ahead - sigma
    width = -change / INTEGRATION_POINTS
    points = [ahead + i * width for i in range(INTEGRATION_POINTS)]
    scale = _noise_scale(ahead)
    first = sum(width / _noise_scale(point) for point in points)
    second = sum((point - sigma) * width / _noise_scale(point) for point in points)
    return change + first * scale, change * change / 2.0 + second * scale
