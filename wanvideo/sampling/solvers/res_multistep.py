"""RES-2M: refined exponential solver, two clean estimates per step (arXiv:2308.02157)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..solver import Denoiser, Noise, Step, weighted


@dataclass(frozen=True)
class RESState:
    """Clean estimate and noise level of the step before; None before the first."""

    clean: Tensor | None = None
    sigma: float = 1.0


class RES2M:
    """Exponential integrator in ``-ln sigma``; the first step, and a step to sigma 0, are Euler."""

    name = "res_multistep"
    order = 2

    def init(self, x: Tensor) -> RESState:
        """Nothing remembered."""
        del x
        return RESState()

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: RESState, noise: Noise
    ) -> tuple[Tensor, RESState]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del noise
        clean = x - step.sigma * denoise(x, step.timestep)
        ratio = step.sigma_next / step.sigma
        now = RESState(clean, step.sigma)
        if state.clean is None or step.sigma_next == 0.0:
            return weighted((ratio, x), (1.0 - ratio, clean)), now
        size = -math.log(ratio)
        phi1 = (1.0 - ratio) / size
        phi2 = (1.0 - phi1) / size
        older = phi2 * size / math.log(step.sigma / state.sigma)
        return weighted((ratio, x), (size * (phi1 - older), clean), (size * older, state.clean)), now
