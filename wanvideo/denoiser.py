"""Evaluates the transformer for the named passes of guidance."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .conditioning.conditioning import Conditioning
from .transformer.context import RunState
from .transformer.model import WanTransformer


class Denoiser:
    """The model as the sampling loop sees it: a velocity for a pass, a latent and a timestep.

    Args:
        model: on its device.
        passes: conditioning by pass name.
        run: options and memo of this run.
        total_steps: of this sampler; step ranges of family inputs refer to it.
    """

    def __init__(
        self,
        model: WanTransformer,
        passes: Mapping[str, Conditioning],
        run: RunState,
        *,
        total_steps: int,
    ) -> None:
        self._model = model
        self._passes = passes
        self._run = run
        self._total_steps = total_steps

    def __call__(self, pass_name: str, latent: Tensor, timestep: float, step: int) -> Tensor:
        """Velocity ``[B, C, T, H, W]`` in float32 of a normalised latent at ``timestep`` (0 to 1000)."""
        conditioning = self._passes[pass_name].active(step, self._total_steps)
        self._run.begin_evaluation(latent, timestep, step)
        return self._model(latent, conditioning.frame_timesteps(timestep), conditioning, self._run)
