"""Schedules by name: sigmas, the timesteps the model is told, and the part of them one run takes."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from ..errors import InputError
from . import sigmas as spacing
from .sigmas import DEIS_TERMINAL, TRAINING_STEPS, WIDTH_14B, SigmaRequest

logger = logging.getLogger(__name__)

HIGH_FREQUENCY_SHARE = 0.2  # enhance_hf: share of the steps spent on the uniform tail
HIGH_FREQUENCY_STEPS = (3, 15)  # enhance_hf: fewest and most steps of the tail


class CustomSigmas(Enum):
    """What a scheduler name does with sigmas the user hands over."""

    TOLD_WHOLE = "used; the model is told whole timesteps"
    TOLD_EXACT = "used; the model is told 1000 * sigma"
    IGNORED = "only their number counts"
    REFUSED = "refused"


@dataclass(frozen=True)
class Schedule:
    """Noise levels of a whole sampling run.

    Args:
        name: scheduler name it was made for.
        sigmas: ``n + 1`` falling values within 0 to 1, the terminal included.
        timesteps: ``n`` values within 0 to 1000 as the model is told them. They are 1000 * sigma, except
            where a scheduler cuts them to whole numbers (``unipc``, ``dpm++``, ``deis``, ``vibt_unipc``).
    """

    name: str
    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.timesteps)

    def select(self, start: float = 0, end: float = -1) -> tuple[int, int]:
        """The steps a run takes: index of the first, and index after the last.

        Args:
            start: whole number: index of the first step; float: the run starts at the first sigma not
                above it.
            end: whole number: the run stops before this step, -1 for the end; float: the run takes every
                step whose sigma is not below it. A run that stops early ends on a noisy latent. With the
                same float in both places of two runs the steps are split between them without overlap.

        Raises:
            InputError: when no step is left, or a value lies outside the schedule.
        """
        first = self._first_step(start)
        stop = self._stop_step(end)
        both_sigmas = isinstance(start, float) and isinstance(end, float) and end >= 0
        if first >= stop or (both_sigmas and end >= start):
            rule = "sigmas fall, so start_step must be the higher one" if both_sigmas else "it must be below"
            raise InputError("start_step", f"start_step {start} leaves no step before end_step {end}; {rule}")
        return first, stop

    def select_denoise(self, denoise_strength: float, start: float = 0, end: float = -1) -> tuple[int, int]:
        """Like :meth:`select`, for a run that only redoes the last ``denoise_strength`` of the steps.

        It takes ``int(steps * denoise_strength) + 1`` steps, so 0 still takes one.

        Raises:
            InputError: when the strength lies outside 0 to 1, or ``start`` is given as well.
        """
        if not 0.0 <= denoise_strength <= 1.0:
            raise InputError("denoise_strength", f"{denoise_strength} is outside 0 to 1")
        if denoise_strength == 1.0:
            return self.select(start, end)
        if start != 0:
            problem = f"start_step {start} and denoise_strength {denoise_strength} both choose the first step"
            raise InputError("start_step", f"{problem}; set start_step to 0 or denoise_strength to 1")
        return self.select(max(0, self.steps - int(self.steps * denoise_strength) - 1), end)

    def _first_step(self, start: float) -> int:
        if isinstance(start, float):
            at_or_below = (i for i, sigma in enumerate(self.sigmas) if float32(sigma) <= float32(start))
            return next(at_or_below, self.steps)
        if start >= self.steps:
            problem = f"{start} is beyond the schedule of {self.steps} steps"
            raise InputError("start_step", f"{problem}; use 0 to {self.steps - 1}")
        return max(0, start)

    def _stop_step(self, end: float) -> int:
        if end < 0:
            return self.steps
        if isinstance(end, float):
            not_below = [i for i, sigma in enumerate(self.sigmas) if float32(sigma) >= float32(end)]
            if not not_below:
                raise InputError(
                    "end_step", f"no sigma is as high as {end}; the first is {self.sigmas[0]:.4f}"
                )
            return min(not_below[-1] + 1, self.steps)
        return min(end, self.steps)


@dataclass(frozen=True)
class _Scheduler:
    solver: str
    generate: Callable[[SigmaRequest], list[float]]
    needs_shift: bool = True
    tells_whole: bool = False  # generated timesteps are cut to whole numbers
    custom: CustomSigmas = CustomSigmas.TOLD_WHOLE
    terminal: float = 0.0


def _schedulers() -> dict[str, _Scheduler]:
    exact, ignored, refused = CustomSigmas.TOLD_EXACT, CustomSigmas.IGNORED, CustomSigmas.REFUSED
    table: dict[str, _Scheduler] = {}
    for name in ("unipc", "dpm++", "dpm++_sde"):
        table[name] = _Scheduler(name, spacing.wan_sigmas, tells_whole=True)
        table[f"{name}/beta"] = replace(table[name], generate=spacing.wan_beta_sigmas)
    for name in ("euler", "lcm"):
        table[name] = _Scheduler(name, spacing.euler_sigmas, custom=exact)
        table[f"{name}/beta"] = replace(table[name], generate=spacing.euler_beta_sigmas)
    table["longcat_distill_euler"] = _Scheduler("euler", spacing.longcat_sigmas, custom=ignored)
    table["deis"] = _Scheduler("deis", spacing.deis_sigmas, tells_whole=True, terminal=DEIS_TERMINAL)
    table["res_multistep"] = _Scheduler("res_multistep", spacing.thousandths_sigmas)
    table["er_sde"] = _Scheduler("er_sde", spacing.thousandths_sigmas)
    table["flowmatch_causvid"] = _Scheduler(
        "euler", spacing.causvid_sigmas, needs_shift=False, custom=refused
    )
    table["flowmatch_distill"] = _Scheduler("euler", spacing.distill_sigmas, custom=refused)
    table["flowmatch_pusa"] = _Scheduler("pusa", spacing.simple_sigmas)
    table["multitalk"] = _Scheduler("euler", spacing.multitalk_sigmas, custom=ignored)
    table["sa_ode_stable"] = _Scheduler("sa_ode", spacing.sa_ode_sigmas)
    table["rcm"] = _Scheduler("rcm", spacing.rcm_sigmas, needs_shift=False, custom=refused)
    table["vibt_unipc"] = _Scheduler("bridge", spacing.bridge_sigmas, tells_whole=True, custom=ignored)
    return table


_SCHEDULERS = MappingProxyType(_schedulers())

# in the order the scheduler input offers them
SCHEDULER_NAMES = (
    "unipc", "unipc/beta", "dpm++", "dpm++/beta", "dpm++_sde", "dpm++_sde/beta", "euler", "euler/beta",
    "longcat_distill_euler", "deis", "lcm", "lcm/beta", "res_multistep", "er_sde", "flowmatch_causvid",
    "flowmatch_distill", "flowmatch_pusa", "multitalk", "sa_ode_stable", "rcm", "vibt_unipc",
)  # fmt: skip


def build_schedule(
    name: str,
    steps: int,
    shift: float = 5.0,
    *,
    sigmas: Sequence[float] | None = None,
    denoise_strength: float = 1.0,
    enhance_hf: bool = False,
    model_dim: int = WIDTH_14B,
) -> Schedule:
    """The schedule of a scheduler name.

    Args:
        name: one of :data:`SCHEDULER_NAMES`.
        steps: number of steps, at least 1; without meaning when ``sigmas`` are given.
        shift: above 0; schedules of fixed levels do not use it.
        sigmas: levels to use as they are, terminal included, instead of the scheduler's own.
        denoise_strength: 0 to 1; ``flowmatch_pusa`` starts its spacing there. Which steps of the result a
            run takes is chosen by :meth:`Schedule.select_denoise`, for every name.
        enhance_hf: spend more steps on the low half of the timesteps, where fine detail is made.
        model_dim: width of the transformer; ``flowmatch_causvid`` has one list for width 5120 and one for
            the rest.

    Raises:
        InputError: unknown name, bad number, or a combination the scheduler does not have.
    """
    scheduler = _find(name)
    if sigmas is not None and scheduler.custom is CustomSigmas.REFUSED:
        raise InputError(
            "sigmas", f"scheduler {name} has its own fixed levels; disconnect sigmas or choose another"
        )
    custom = None if sigmas is None else _checked_sigmas(sigmas)
    if custom is not None and scheduler.custom is not CustomSigmas.IGNORED:
        schedule = Schedule(name, custom, _told_custom(custom, scheduler.custom))
    else:
        if custom is not None:
            logger.warning("scheduler %s has its own levels: only the number of sigmas is used", name)
        request = SigmaRequest(
            steps if custom is None else len(custom) - 1, shift, denoise_strength, model_dim
        )
        schedule = _generated(name, scheduler, request)
    return _with_high_frequency_tail(schedule) if enhance_hf else schedule


def solver_name(scheduler: str) -> str:
    """Name of the solver that goes with a scheduler name.

    Raises:
        InputError: for an unknown scheduler.
    """
    return _find(scheduler).solver


def _find(name: str) -> _Scheduler:
    if name not in _SCHEDULERS:
        choices = ", ".join(SCHEDULER_NAMES)
        raise InputError("scheduler", f"there is no scheduler named {name!r}; choose one of {choices}")
    return _SCHEDULERS[name]


def _generated(name: str, scheduler: _Scheduler, request: SigmaRequest) -> Schedule:
    if request.steps < 1:
        raise InputError("steps", f"{request.steps} is too few; a run needs at least 1 step")
    if scheduler.needs_shift and not (math.isfinite(request.shift) and request.shift > 0):
        raise InputError(
            "shift", f"{request.shift} gives no schedule; use a value above 0 (1 is no shift, 5 usual)"
        )
    sigmas = scheduler.generate(request)
    if scheduler.tells_whole:
        timesteps = tuple(float(int(sigma * TRAINING_STEPS)) for sigma in sigmas)
    else:
        timesteps = tuple(sigma * TRAINING_STEPS for sigma in sigmas)
    return Schedule(name, (*sigmas, scheduler.terminal), timesteps)


def _checked_sigmas(sigmas: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(sigma) for sigma in sigmas)
    if len(values) < 2:
        raise InputError(
            "sigmas", f"{len(values)} value(s) given; a schedule needs at least 2, such as 1.0, 0.0"
        )
    for i, sigma in enumerate(values):
        if not 0.0 <= sigma <= 1.0:
            raise InputError(
                "sigmas", f"value {i} is {sigma:g}; Wan's noise levels lie within 1 (noise) and 0 (clean)"
            )
        if i and sigma >= values[i - 1]:
            problem = f"value {i} ({sigma:g}) is not below value {i - 1} ({values[i - 1]:g})"
            raise InputError("sigmas", f"{problem}; noise levels must fall")
    return values


def _told_custom(sigmas: tuple[float, ...], rule: CustomSigmas) -> tuple[float, ...]:
    if rule is CustomSigmas.TOLD_EXACT:
        return tuple(sigma * TRAINING_STEPS for sigma in sigmas[:-1])
    # float32 product as in the reference: 0.7 is 700 there, not the 699 of cutting 699.99999
    return tuple(float(int(float32(float32(sigma) * TRAINING_STEPS))) for sigma in sigmas[:-1])


def _with_high_frequency_tail(schedule: Schedule) -> Schedule:
    fewest, most = HIGH_FREQUENCY_STEPS
    count = max(fewest, min(most, int(schedule.steps * HIGH_FREQUENCY_SHARE)))
    middle = 0.5 * float32(max(schedule.timesteps))
    kept = tuple(timestep for timestep in schedule.timesteps if float32(timestep) > middle)
    timesteps = (*kept, *spacing.evenly(middle, 0.0, count + 1)[:-1])
    return Schedule(schedule.name, (*(t / TRAINING_STEPS for t in timesteps), 0.0), timesteps)


def float32(value: float) -> float:
    """``value`` rounded to single precision, the precision a SIGMAS input arrives in."""
    return struct.unpack("f", struct.pack("f", value))[0]
