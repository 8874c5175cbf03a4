"""DEIS of order 2 with a polynomial in log rho, ``rho = sigma / (1 - sigma)`` (arXiv:2204.13902)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..solver import Denoiser, Noise, Step, weighted

FEW_STEPS = 15  # shorter paths end with a step of order 1


@dataclass(frozen=True)
class DEISState:
    """Noise estimate and noise level of the step before; None before the first."""

    noise: Tensor | None = None
    sigma: float = 1.0


class DEIS:
    """An Euler step plus the slope of the noise estimate over log rho, integrated exactly."""

    name = "deis"
    order = 2

    def init(self, x: Tensor) -> DEISState:
        """Nothing remembered."""
        del x
        return DEISState()

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: DEISState, noise: Noise
    ) -> tuple[Tensor, DEISState]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del noise
        velocity = denoise(x, step.timestep)
        estimate = x + (1.0 - step.sigma) * velocity
        terms = [(1.0, x), (step.sigma_next - step.sigma, velocity)]
        is_lowered = step.steps_left == 1 and step.path_steps < FEW_STEPS
        # a history at sigma 1 has rho infinite: its slope over log rho is 0
        if state.noise is not None and state.sigma < 1.0 and not is_lowered:
            weight = (1.0 - step.sigma_next) * _slope_weight(state.sigma, step.sigma, step.sigma_next)
            terms += [(weight, state.noise), (-weight, estimate)]
        return weighted(*terms), DEISState(estimate, step.sigma)


def _slope_weight(sigma_last: float, sigma: float, sigma_next: float) -> float:
    """Integral over rho, from here to the next level, of ``ln(rho / here) / ln(last / here)``."""
    last, here, ahead = (level / (1.0 - level) for level in (sigma_last, sigma, sigma_next))
    at_next = ahead * (math.log(ahead / here) - 1.0) if ahead > 0.0 else 0.0
    return (at_next + here) / math.log(last / here)
