"""Consistency sampling: jump to the clean estimate, add fresh noise (LCM, rCM)."""

from __future__ import annotations

import math

from torch import Tensor

from ..solver import Denoiser, Noise, Step, weighted


class LCM:
    """``x' = (1 - sigma') clean + sigma' noise``; noise is drawn on the last step too, with weight 0."""

    name = "lcm"
    order = None

    def init(self, x: Tensor) -> None:
        """No memory."""

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del state
        clean = x - step.sigma * denoise(x, step.timestep)
        return weighted((1.0 - step.sigma_next, clean), (step.sigma_next, noise())), None


class RCM:
    """rCM as LCM on flow levels; no noise is drawn on the step that ends clean.

    rCM keeps its state on a circle, ``cos t clean + sin t noise``. Divided by ``cos t + sin t`` that is a
    flow state at ``sigma = sin t / (cos t + sin t)``, so one factor on the start latent is all that is
    left of the difference (measured 1.2e-7 on equal noise).
    """

    name = "rcm"
    order = None

    def init(self, x: Tensor) -> None:
        """No memory."""

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del state
        if step.schedule_index == 0:
            x = x * math.hypot(step.sigma, 1.0 - step.sigma)
        clean = x - step.sigma * denoise(x, step.timestep)
        if step.sigma_next == 0.0:
            return clean, None
        return weighted((1.0 - step.sigma_next, clean), (step.sigma_next, noise())), None
