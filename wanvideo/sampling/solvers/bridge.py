"""Brownian bridge Euler, for ViBT (Vision Bridge Transformer) models."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..solver import Denoiser, Noise, Step

TRAINING_STEPS = 1000


class BridgeEuler:
    """Euler between told timesteps with the noise of a bridge that ends at a fixed latent.

    It steps from ``t + 1`` thousandths, so that the last step reaches 0.
    """

    name = "bridge"
    order = None

    def init(self, x: Tensor) -> None:
        """No memory."""

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del state
        here = (step.timestep + 1.0) / TRAINING_STEPS
        ahead = 0.0 if step.timestep_next is None else (step.timestep_next + 1.0) / TRAINING_STEPS
        velocity = denoise(x, step.timestep)
        x = torch.add(x, velocity, alpha=ahead - here)
        return x.add_(noise(), alpha=math.sqrt((here - ahead) * ahead / here)), None
