"""What Time-to-Move does to the latent (https://github.com/time-to-move/TTM)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...sampling.edits import LatentEdit
from ...sampling.noise import draw_noise, noised, seeded_generator
from ...sampling.solver import Step


@dataclass(frozen=True)
class StepWindow:
    """Steps of the whole schedule.

    Args:
        start: the run begins here, from the noised reference; below 0 at step 0, from pure noise.
        end: the first step after which the masked part is left alone.
    """

    start: int
    end: int


class DualClock(LatentEdit):
    """Lets a masked part follow a reference longer than the rest does.

    All of the video begins as the reference at the noise level of the first step; then the masked part is set
    to the reference at the new noise level after every step of the window. The noise is one draw.

    Args:
        reference: normalised latent ``[1, C, T, h, w]`` to follow.
        mask: ``[1, 1, T, h, w]``, 1 where it is followed.
        window: the steps.
        seed: of the noise, which is that of the run.
    """

    def __init__(self, reference: Tensor, mask: Tensor, window: StepWindow, seed: int) -> None:
        self._reference = reference
        self._mask = mask > 0
        self._window = window
        self._seed = seed
        self._noise: Tensor | None = None

    def on_start(self, x: Tensor, step: Step) -> Tensor:
        """The noised reference, unless another run has begun already and this one goes on."""
        self._reference, self._mask = self._reference.to(x), self._mask.to(x.device)
        self._noise = draw_noise(x.shape, seeded_generator(self._seed)).to(x)
        return self._at(step.timestep) if step.schedule_index == self._window.start else x

    def after_step(self, x: Tensor, step: Step) -> Tensor:
        """The masked part of the reference at the new noise level; the last step leads to the clean one."""
        if step.schedule_index >= self._window.end:
            return x
        next_step = 1000.0 * step.sigma_next if step.timestep_next is None else step.timestep_next
        return torch.where(self._mask, self._at(next_step), x)

    def _at(self, timestep: float) -> Tensor:
        # what the model is told, as in WanVideoWrapper: unipc and dpm++ round it, and sigma differs by 5e-4
        assert self._noise is not None
        return noised(self._reference, self._noise, timestep / 1000.0)
