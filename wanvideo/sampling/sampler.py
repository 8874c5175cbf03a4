"""The sampling loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import WanError
from .edits import LatentEdit
from .guidance import guided_velocity
from .noise import NoiseSource
from .plan import SamplingPlan
from .solver import SolverHistory, Step, resumed_state


class Denoise(Protocol):
    """The model: one forward of one guidance pass."""

    def __call__(self, pass_name: str, latent: Tensor, timestep: float, step: int, /) -> Tensor:
        """The velocity, noise minus clean.

        Args:
            pass_name: which conditions, one of ``plan.guidance.passes``.
            latent: ``[B, C, T, H, W]``.
            timestep: 0 to 1000.
            step: index of the step in this run.
        """
        ...


class Observer(Protocol):
    """Whoever watches: progress bar, preview."""

    def on_step(self, step: int, total: int, sigma: float, denoised: Callable[[], Tensor], /) -> None:
        """A step is done.

        Args:
            step: its index in this run.
            total: steps of this run.
            sigma: noise level it started from.
            denoised: makes the clean estimate of this step; costs nothing unless called.
        """
        ...


class NotFiniteError(WanError):
    """The latent holds NaN or infinity.

    Args:
        step: index of the step it appeared at, -1 for the start latent.
        sigma: noise level of that step.
        problem: the message.
    """

    def __init__(self, step: int, sigma: float, problem: str) -> None:
        self.step = step
        self.sigma = sigma
        super().__init__(problem)


@dataclass(frozen=True)
class SampleResult:
    """What a run gives.

    Args:
        latent: ``[B, C, T, H, W]`` float32; at the plan's last sigma, so noisy if the run stopped early.
        denoised: clean estimate of the last step.
        generator_state: state of the noise generator, for a run that goes on from here.
        solver_state: memory of the solver, for a run that goes on from here with ``solver_history``
            "continue"; else None.
    """

    latent: Tensor
    denoised: Tensor
    generator_state: Tensor
    solver_state: SolverHistory | None


def sample(
    denoise: Denoise,
    latent: Tensor,
    plan: SamplingPlan,
    *,
    generator: torch.Generator,
    observer: Observer | None = None,
    edits: Sequence[LatentEdit] = (),
    solver_state: SolverHistory | None = None,
) -> SampleResult:
    """Run a plan.

    Args:
        denoise: the model.
        latent: ``[B, C, T, H, W]`` at the plan's first sigma, on the device to work on.
        plan: what to do.
        generator: CPU generator of the noise that stochastic solvers add.
        observer: told after every step.
        edits: latent edits, in order.
        solver_state: memory of the run before; used when the plan says "continue".

    Raises:
        NotFiniteError: when the latent holds NaN or infinity.
    """
    solver, steps = plan.method, plan.steps
    x = latent.float()
    noise = NoiseSource(generator, x)
    try:
        for edit in edits:
            x = edit.on_start(x, steps[0])
        _check_start(x, steps[0])
        history = solver_state if plan.solver_history == "continue" else None
        state = resumed_state(solver, x, steps[0], history)
        model = _Model(denoise, plan, edits, steps[0])
        for step in steps:
            model.step = step
            x, state = solver.step(model, x, step, state, noise)
            for edit in edits:
                x = edit.after_step(x, step)
            _check_step(x, step)
            if observer is not None:
                observer.on_step(step.index, step.count, step.sigma, model.denoised)
    finally:
        for edit in edits:
            edit.on_end()
    kept = (
        SolverHistory(solver.name, steps[-1].sigma_next, state) if plan.solver_history == "continue" else None
    )
    return SampleResult(x, model.denoised(), generator.get_state(), kept)


class _Model:
    """The guided model as solvers see it; remembers the last prediction for the clean estimate."""

    def __init__(self, denoise: Denoise, plan: SamplingPlan, edits: Sequence[LatentEdit], step: Step) -> None:
        self.step = step
        self._denoise = denoise
        self._plan = plan
        self._edits = edits
        self._last: tuple[Tensor, Tensor, float] | None = None

    def __call__(self, x: Tensor, timestep: float) -> Tensor:
        """The guided, filtered and edited velocity at ``x``."""
        shown = x
        for edit in self._edits:
            shown = edit.model_input(shown, self.step)
        velocity = self._guided(shown, timestep)
        for each in self._plan.filters:
            velocity = each.rescaled(velocity, shown, timestep)
        for edit in reversed(self._edits):
            velocity = edit.prediction(velocity, x, self.step)
        self._last = (x, velocity, timestep)
        return velocity

    def denoised(self) -> Tensor:
        """Clean estimate of the last prediction, with the noise level the model was told."""
        assert self._last is not None
        x, velocity, timestep = self._last
        return torch.add(x, velocity, alpha=-timestep / 1000.0)

    def _guided(self, shown: Tensor, timestep: float) -> Tensor:
        index, filters = self.step.index, self._plan.filters
        if any(each.skips(index) for each in filters):
            return torch.zeros_like(shown)

        def evaluate(pass_name: str) -> Tensor:
            return self._denoise(pass_name, shown, timestep, index).to(shown)

        return guided_velocity(evaluate, self._plan.guidance, index, filters=filters)


def _check_start(x: Tensor, step: Step) -> None:
    if not _is_finite(x):
        problem = "the latent the run starts from holds NaN or infinity"
        raise NotFiniteError(-1, step.sigma, f"{problem}; check the samples or images it was made from")


def _check_step(x: Tensor, step: Step) -> None:
    if not _is_finite(x):
        where = f"step {step.index + 1} of {step.count} (sigma {step.sigma:.4f})"
        raise NotFiniteError(
            step.index,
            step.sigma,
            f"the latent became NaN or infinite at {where}, so the video would be black; try base_precision "
            "bf16 or fp32 instead of fp16, attention_mode sdpa, lower LoRA strengths or a lower cfg",
        )


def _is_finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())
