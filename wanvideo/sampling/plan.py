"""One sampling run, decided before a weight is touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from .filters import Filter, ordered
from .guidance import Guidance
from .schedules import Schedule
from .solver import AnySolver, Step
from .solvers import solver_for

SolverHistoryMode = Literal["restart", "continue"]


@dataclass(frozen=True)
class SamplingPlan:
    """What a run does.

    Args:
        schedule: the whole schedule.
        first_step: index of the first step of the run.
        end_step: index after its last step; see :meth:`Schedule.select`.
        guidance: passes and weights for every step of the run.
        solver: sampling method; None takes the one that goes with the schedule's name.
        seed: seed of the noise, for the log.
        filters: changes to the predictions; put into their order here.
        solver_history: "restart": the run is a path of its own, multistep solvers start and end it at
            order 1, as WanVideoWrapper does. "continue": the path is the whole schedule; a run that stops
            early keeps its order, hands its memory on, and the next run takes it, so that two chained
            runs equal one.
    """

    schedule: Schedule
    first_step: int
    end_step: int
    guidance: Guidance
    solver: AnySolver | None = None
    seed: int = 0
    filters: tuple[Filter, ...] = ()
    solver_history: SolverHistoryMode = "restart"

    def __post_init__(self) -> None:
        if not 0 <= self.first_step < self.end_step <= self.schedule.steps:
            steps = f"steps {self.first_step} to {self.end_step}"
            raise InputError("start_step", f"{steps} are not steps of a schedule of {self.schedule.steps}")
        if self.guidance.steps != self.count:
            raise ValueError(f"guidance for {self.guidance.steps} steps, the run has {self.count}")
        object.__setattr__(self, "filters", ordered(self.filters))

    @property
    def count(self) -> int:
        """Number of steps of the run."""
        return self.end_step - self.first_step

    @property
    def method(self) -> AnySolver:
        """The solver of the run."""
        return solver_for(self.schedule.name) if self.solver is None else self.solver

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Noise levels of the run, the one it ends at included."""
        return self.schedule.sigmas[self.first_step : self.end_step + 1]

    @property
    def timesteps(self) -> tuple[float, ...]:
        """What the model is told at the steps of the run."""
        return self.schedule.timesteps[self.first_step : self.end_step]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the run."""
        continues = self.solver_history == "continue"
        path_start = 0 if continues else self.first_step
        path_end = self.schedule.steps if continues else self.end_step
        timesteps = (*self.schedule.timesteps[:path_end], None)
        return tuple(
            Step(
                index=index - self.first_step,
                count=self.count,
                schedule_index=index,
                schedule_count=self.schedule.steps,
                sigma=self.schedule.sigmas[index],
                sigma_next=self.schedule.sigmas[index + 1],
                timestep=self.schedule.timesteps[index],
                timestep_next=timesteps[index + 1],
                steps_left=path_end - index,
                path_steps=path_end - path_start,
            )
            for index in range(self.first_step, self.end_step)
        )

    def __str__(self) -> str:
        part = f"steps {self.first_step} to {self.end_step} of {self.schedule.steps}"
        if self.count == self.schedule.steps:
            part = f"{self.count} steps"
        filters = "".join(f", {each}" for each in self.filters)
        return (
            f"{self.schedule.name} ({self.method.name} solver), {part}, sigma {self.sigmas[0]:.4f} to "
            f"{self.sigmas[-1]:.4f}, {self.guidance}{filters}, seed {self.seed}"
        )
