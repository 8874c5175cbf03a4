"""SA-ODE "stable", as WanVideoWrapper ships it (github.com/eddyhhlure1Eddy/ode-ComfyUI-WanVideoWrapper).

Adams-Bashforth on the velocity with the weights of equal steps although the sigmas are not equal. Above
8 steps the end of the path is smoothed and its steps shortened, so the result is not quite at sigma 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..solver import Denoiser, Noise, Step, weighted

FEW_STEPS = 8
HIGH_SIGMA = 0.7
LOW_SIGMA = 0.15
LAST_SIGMA = 0.05
SMOOTHING = 0.8
ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
}


@dataclass(frozen=True)
class SAODEState:
    """Velocities of up to three steps, newest first, and the smoothed velocity."""

    velocities: tuple[Tensor, ...] = ()
    smoothed: Tensor | None = None


class SAODE:
    """Deterministic; converges to the flow only for schedules of up to 8 equal steps."""

    name = "sa_ode"
    order = None

    def init(self, x: Tensor) -> SAODEState:
        """Nothing remembered."""
        del x
        return SAODEState()

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: SAODEState, noise: Noise
    ) -> tuple[Tensor, SAODEState]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del noise
        velocities = (denoise(x, step.timestep), *state.velocities)[:3]
        is_smoothed = step.schedule_count > FEW_STEPS and step.sigma < LOW_SIGMA
        weights = ADAMS_BASHFORTH[min(_order(step), len(velocities))]
        velocity = weighted(*zip(weights, velocities, strict=False))
        if is_smoothed and state.smoothed is not None:
            velocity = torch.lerp(velocity, state.smoothed, SMOOTHING)
        now = SAODEState(velocities, velocity)
        change = step.sigma_next - step.sigma
        if not is_smoothed:
            return torch.add(x, velocity, alpha=change), now
        change *= 0.5 + 0.5 * step.sigma / LOW_SIGMA
        if step.sigma < LAST_SIGMA and len(velocities) == 3:
            mean = torch.stack(velocities).mean(dim=0)
            velocity = torch.lerp(mean, velocity, step.sigma / LAST_SIGMA)
        return torch.add(x, velocity, alpha=change), now


def _order(step: Step) -> int:
    is_middle = LOW_SIGMA < step.sigma <= HIGH_SIGMA
    return 3 if step.schedule_count > FEW_STEPS and is_middle else 2
