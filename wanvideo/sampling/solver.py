"""What a solver is: a function from one noise level to the next, with its memory handed in and out.

Solvers are driven by the step's own numbers, never by looking a timestep up, so equal timesteps are no
problem. Tensors keep their dtype and device (float32 in the loop); coefficients are Python floats.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

StateT = TypeVar("StateT")

# (latent, timestep the model is told) -> velocity, noise minus clean
Denoiser = Callable[[Tensor, float], Tensor]
# one draw of standard normal noise in the latent's shape, dtype and device
Noise = Callable[[], Tensor]

SAME_SIGMA = 1e-6


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Args:
        index: 0 for the first step of the run.
        count: number of steps of the run.
        schedule_index: 0 for the first step of the whole schedule.
        schedule_count: number of steps of the whole schedule.
        sigma: noise level the step starts from, above 0.
        sigma_next: noise level it leads to.
        timestep: what the model is told, 0 to 1000.
        timestep_next: what the model is told at the next step, or None where the solver's path ends.
        steps_left: steps to the end of the solver's path, this one included. Multistep solvers lower
            their order by it.
        path_steps: number of steps of that path.
    """

    index: int
    count: int
    schedule_index: int
    schedule_count: int
    sigma: float
    sigma_next: float
    timestep: float
    timestep_next: float | None
    steps_left: int
    path_steps: int

    @property
    def is_last(self) -> bool:
        """Whether the run ends with this step."""
        return self.index == self.count - 1


class Solver(Protocol[StateT]):
    """A sampling method. It holds no state: memory goes in and out of :meth:`step`."""

    @property
    def name(self) -> str:
        """Key of the registry, for messages."""
        ...

    @property
    def order(self) -> int | None:
        """Order of convergence to the exact flow; None for methods that do not follow it."""
        ...

    def init(self, x: Tensor) -> StateT:
        """The memory a run starts with."""
        ...

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: StateT, noise: Noise
    ) -> tuple[Tensor, StateT]:
        """``x`` at ``step.sigma_next`` and the memory for the next step.

        Args:
            denoise: the model's guided velocity.
            x: latent ``[B, C, T, H, W]`` at ``step.sigma``.
            step: where on the schedule the run is.
            state: what :meth:`init` or the step before returned.
            noise: a draw of noise; called as often as the reference draws, so that seeds agree.
        """
        ...


AnySolver = Solver[Any]


@dataclass(frozen=True)
class SolverHistory:
    """Memory of a solver that stopped early, for the run that goes on from there.

    Args:
        solver: name of the solver.
        sigma: noise level it stopped at.
        state: its memory.
    """

    solver: str
    sigma: float
    state: object

    def to(self, device: torch.device | str) -> SolverHistory:
        """The same memory with its tensors on ``device``."""
        return replace(self, state=_moved(self.state, torch.device(device)))


def resumed_state(solver: AnySolver, x: Tensor, first: Step, history: SolverHistory | None) -> Any:
    """The memory to start with: that of ``history`` where it fits, else a fresh one.

    It fits when the same solver stopped at the noise level this run starts from, on a latent of this size.
    """
    if history is None:
        return solver.init(x)
    if history.solver != solver.name or abs(history.sigma - first.sigma) > SAME_SIGMA:
        message = "Starting %s at sigma %.4f afresh: the solver history given is of %s at sigma %.4f"
        logger.warning(message, solver.name, first.sigma, history.solver, history.sigma)
        return solver.init(x)
    if any(tensor.shape != x.shape for tensor in _tensors(history.state)):
        logger.warning("The solver history belongs to a latent of another size: starting afresh")
        return solver.init(x)
    return history.to(x.device).state


def log_snr(sigma: float) -> float:
    """Half the log signal-to-noise ratio, ``ln((1 - sigma) / sigma)``; infinite at 0 and 1."""
    if sigma <= 0.0:
        return math.inf
    if sigma >= 1.0:
        return -math.inf
    return math.log((1.0 - sigma) / sigma)


def noise_ratio(sigma: float, sigma_next: float) -> float:
    """``exp(-h)`` for the step ``h`` in half log-SNR; 0 for a step from pure noise or to a clean latent."""
    return sigma_next / (1.0 - sigma_next) * (1.0 - sigma) / sigma


def weighted(*terms: tuple[float, Tensor]) -> Tensor:
    """The sum of ``factor * tensor``."""
    factor, tensor = terms[0]
    total = tensor * factor
    for factor, tensor in terms[1:]:
        total.add_(tensor, alpha=factor)
    return total


def _tensors(state: object) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, tuple):
        return [tensor for item in cast("tuple[object, ...]", state) for tensor in _tensors(item)]
    if is_dataclass(state) and not isinstance(state, type):
        return [tensor for field in fields(state) for tensor in _tensors(getattr(state, field.name))]
    return []


def _moved(state: object, device: torch.device) -> object:
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, tuple):
        return tuple(_moved(item, device) for item in cast("tuple[object, ...]", state))
    if is_dataclass(state) and not isinstance(state, type):
        changes = {field.name: _moved(getattr(state, field.name), device) for field in fields(state)}
        return replace(state, **changes)
    return state
