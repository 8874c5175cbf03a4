"""DPM-Solver++ 2M and its SDE form, midpoint (arXiv:2211.01095)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..solver import Denoiser, Noise, Step, log_snr, noise_ratio, weighted


@dataclass(frozen=True)
class DPMState:
    """Clean estimate and noise level of the step before; None before the first."""

    clean: Tensor | None = None
    sigma: float = 1.0


class DPMpp2M:
    """Order 2; the first and the last step of the path are of order 1."""

    name = "dpm++"
    order = 2

    def init(self, x: Tensor) -> DPMState:
        """Nothing remembered."""
        del x
        return DPMState()

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: DPMState, noise: Noise
    ) -> tuple[Tensor, DPMState]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del noise
        clean = x - step.sigma * denoise(x, step.timestep)
        signal = (1.0 - step.sigma_next) * (1.0 - noise_ratio(step.sigma, step.sigma_next))
        terms = _with_slope(signal, clean, step, state)
        return weighted((step.sigma_next / step.sigma, x), *terms), DPMState(clean, step.sigma)


class DPMpp2MSDE:
    """The same with fresh noise in every step; noise is drawn on the last step too, with weight 0."""

    name = "dpm++_sde"
    order = None

    def init(self, x: Tensor) -> DPMState:
        """Nothing remembered."""
        del x
        return DPMState()

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: DPMState, noise: Noise
    ) -> tuple[Tensor, DPMState]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        clean = x - step.sigma * denoise(x, step.timestep)
        ratio = noise_ratio(step.sigma, step.sigma_next)
        fresh = 1.0 - ratio * ratio
        terms = _with_slope((1.0 - step.sigma_next) * fresh, clean, step, state)
        kept = (step.sigma_next / step.sigma * ratio, x)
        x = weighted(kept, *terms, (step.sigma_next * math.sqrt(fresh), noise()))
        return x, DPMState(clean, step.sigma)


def _with_slope(signal: float, clean: Tensor, step: Step, state: DPMState) -> list[tuple[float, Tensor]]:
    """Terms of the clean estimate extrapolated to the middle of the step, times ``signal``."""
    if state.clean is None or step.steps_left == 1:
        return [(signal, clean)]
    here = log_snr(step.sigma)
    ratio = (here - log_snr(state.sigma)) / (log_snr(step.sigma_next) - here)
    slope = 0.5 * signal / ratio
    return [(signal + slope, clean), (-slope, state.clean)]
