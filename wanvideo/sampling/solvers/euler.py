"""Euler, for the whole latent or frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..solver import Denoiser, Noise, Step


class Euler:
    """``x' = x + (sigma' - sigma) v``."""

    name = "euler"
    order = 1

    def init(self, x: Tensor) -> None:
        """No memory."""

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del state, noise
        velocity = denoise(x, step.timestep)
        return torch.add(x, velocity, alpha=step.sigma_next - step.sigma), None


@dataclass(frozen=True)
class FrameEuler:
    """Euler with a noise level per latent frame, for Pusa.

    Args:
        multipliers: factor on sigma for every latent frame, 0 keeps a frame as it is; None is 1 for all.

    The factor enters once, as in Pusa's own code (github.com/Yaofang-Liu/Pusa-VidGen); WanVideoWrapper
    applies it twice.
    """

    multipliers: tuple[float, ...] | None = None
    name: str = "pusa"
    order: int = 1

    def init(self, x: Tensor) -> None:
        """No memory."""

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del state, noise
        velocity = denoise(x, step.timestep)
        change = step.sigma_next - step.sigma
        if self.multipliers is None:
            return torch.add(x, velocity, alpha=change), None
        factors = torch.tensor(self.multipliers, dtype=x.dtype, device=x.device).view(1, 1, -1, 1, 1)
        return torch.addcmul(x, velocity, factors, value=change), None
