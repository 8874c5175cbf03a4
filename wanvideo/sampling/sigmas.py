"""Noise levels of every scheduler name, as pure functions.

Wan is a rectified flow: ``x = (1 - sigma) * clean + sigma * noise``. A schedule falls from sigma near 1
to 0, and ``shift`` pushes it towards noise. The spacings below are those of WanVideoWrapper, which are
not always the official ones: users compare results, so the numbers are kept, and the reason for every
odd one is written where it is made. All arithmetic is float64.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError

logger = logging.getLogger(__name__)

BETA_SHAPE = 0.6  # both shape parameters of "Beta Sampling is All You Need", arXiv:2407.12173
TRAINING_STEPS = 1000
DEIS_TERMINAL = 1e-6
WIDTH_14B = 5120
FIXED_SCHEDULES = Path(__file__).resolve().parents[2] / "configs" / "schedules.json"


@dataclass(frozen=True)
class SigmaRequest:
    """What a spacing may depend on.

    Args:
        steps: number of steps asked for.
        shift: shift of the schedule, above 0.
        top: highest unshifted sigma, 0 to 1; only ``flowmatch_pusa`` starts lower than 1.
        model_dim: width of the transformer; only ``flowmatch_causvid`` asks.
    """

    steps: int
    shift: float
    top: float = 1.0
    model_dim: int = WIDTH_14B


def shifted(sigma: float, shift: float) -> float:
    """``sigma`` moved towards noise by ``shift`` (1 leaves it, below 1 moves it towards the picture)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def evenly(start: float, stop: float, count: int) -> list[float]:
    """``count`` values from ``start`` to ``stop``, both included; ``[start]`` for one."""
    if count == 1:
        return [start]
    spacing = (stop - start) / (count - 1)
    return [i * spacing + start for i in range(count - 1)] + [stop]


def wan_sigmas(request: SigmaRequest) -> list[float]:
    """``unipc`` and ``dpm++``: even from S(0.999), shifted a second time.

    The top is rounded to float32 on the way, as the reference does: where 1000 * sigma falls on a whole
    number this decides which timestep the model is told.
    """
    base = torch.tensor(0.999, dtype=torch.float32)
    top = float(request.shift * base / (1 + (request.shift - 1) * base))
    return [shifted(sigma, request.shift) for sigma in evenly(top, 0.0, request.steps + 1)[:-1]]


def euler_sigmas(request: SigmaRequest) -> list[float]:
    """``euler`` and ``lcm``: even from 1 to S(0.001) with both ends, shifted a second time.

    The last sigma before 0 is therefore small (0.024 at shift 5), the last step nearly free.
    """
    lowest = shifted(1 / TRAINING_STEPS, request.shift)
    return [shifted(sigma, request.shift) for sigma in evenly(1.0, lowest, request.steps)]


def beta_spaced(sigmas: list[float]) -> list[float]:
    """``sigmas`` re-spaced between their ends by the quantiles of Beta(0.6, 0.6).

    Source: arXiv:2407.12173.
    """
    # heavy, and only these names need it
    from scipy.special import betaincinv  # pyright: ignore[reportMissingTypeStubs]

    high, low = sigmas[0], sigmas[-1]
    quantiles = (float(betaincinv(BETA_SHAPE, BETA_SHAPE, 1 - u)) for u in evenly(0.0, 1.0, len(sigmas)))
    return [low + quantile * (high - low) for quantile in quantiles]


def wan_beta_sigmas(request: SigmaRequest) -> list[float]:
    """``unipc/beta``, ``dpm++/beta`` and ``dpm++_sde/beta``."""
    return beta_spaced(wan_sigmas(request))


def euler_beta_sigmas(request: SigmaRequest) -> list[float]:
    """``euler/beta`` and ``lcm/beta``."""
    return beta_spaced(euler_sigmas(request))


def deis_sigmas(request: SigmaRequest) -> list[float]:
    """``deis``: S(0.999 (1 - i/n)), the official Wan spacing, written as diffusers rounds it."""
    base = [1.0 - alpha for alpha in evenly(1.0, 1 / TRAINING_STEPS, request.steps + 1)]
    return [shifted(sigma, request.shift) for sigma in reversed(base[1:])]


def thousandths_sigmas(request: SigmaRequest) -> list[float]:
    """``res_multistep`` and ``er_sde``: even picks out of a table of 1000 sigmas from 1 to 0.003 / 1.002."""
    table = evenly(1.0, 0.003 / 1.002, TRAINING_STEPS)
    spacing = TRAINING_STEPS / request.steps
    picks = (min(round(i * spacing), TRAINING_STEPS - 1) for i in range(request.steps))
    return [shifted(table[pick], request.shift) for pick in picks]


def simple_sigmas(request: SigmaRequest) -> list[float]:
    """``flowmatch_pusa``: S(top (1 - i/n)); with top 1 this is ComfyUI's "simple" spacing."""
    return [shifted(sigma, request.shift) for sigma in evenly(request.top, 0.0, request.steps + 1)[:-1]]


def sa_ode_sigmas(request: SigmaRequest) -> list[float]:
    """``sa_ode_stable``: even up to 10 steps, half a cosine above."""
    if request.steps <= 10:
        return simple_sigmas(SigmaRequest(request.steps, request.shift))
    waves = (0.5 * (1 + math.cos(math.pi * i / request.steps)) for i in range(request.steps))
    return [shifted(sigma, request.shift) for sigma in waves]


def bridge_sigmas(request: SigmaRequest) -> list[float]:
    """``vibt_unipc``: even from 1 to 0.001 without the last, the first lowered by 1e-6."""
    base = evenly(1.0, 1 / TRAINING_STEPS, request.steps + 1)[:-1]
    sigmas = [shifted(sigma, request.shift) for sigma in base]
    return [sigmas[0] - 1e-6, *sigmas[1:]]


def causvid_sigmas(request: SigmaRequest) -> list[float]:
    """``flowmatch_causvid``: the list the model was distilled on; no shift.

    Raises:
        InputError: when a model that is not of width 5120 is asked for other than 4 steps.
    """
    lists = fixed_schedule("flowmatch_causvid")
    if request.model_dim == WIDTH_14B:
        timesteps: list[int] = lists["timesteps_14b"]
        if request.steps > len(timesteps):
            logger.warning(
                "flowmatch_causvid has at most %d steps: running %d", len(timesteps), len(timesteps)
            )
    else:
        timesteps = lists["timesteps_other"]
        _check_fixed_steps("flowmatch_causvid", request.steps, len(timesteps))
    return [timestep / TRAINING_STEPS for timestep in timesteps[: request.steps]]


def distill_sigmas(request: SigmaRequest) -> list[float]:
    """``flowmatch_distill``: four fixed levels, shifted.

    Raises:
        InputError: when asked for other than 4 steps.
    """
    base: list[float] = fixed_schedule("flowmatch_distill")["base_sigmas"]
    _check_fixed_steps("flowmatch_distill", request.steps, len(base))
    return [shifted(sigma, request.shift) for sigma in base]


def longcat_sigmas(request: SigmaRequest) -> list[float]:
    """``longcat_distill_euler``: even picks out of the 50 levels of the distilled model."""
    grid = fixed_schedule("longcat_distill_euler")
    points: int = grid["grid_points"]
    spacing: int = grid["grid_spacing"]
    # float32 like the reference: a pick that falls on a whole number must not round to its neighbour
    picks = torch.linspace(0, points, request.steps + 1, dtype=torch.float32)[:-1].floor().long()
    levels = (spacing * (points - picks)).float() / TRAINING_STEPS
    return [shifted(float(level), request.shift) for level in levels]


def multitalk_sigmas(request: SigmaRequest) -> list[float]:
    """``multitalk``: four levels evenly from 1 to 0.001, shifted, whatever number of steps is asked for."""
    steps: int = fixed_schedule("multitalk")["steps"]
    if request.steps != steps:
        logger.warning("multitalk always has %d steps: %d were asked for", steps, request.steps)
    return [shifted(sigma, request.shift) for sigma in evenly(1.0, 1 / TRAINING_STEPS, steps)]


def rcm_sigmas(request: SigmaRequest) -> list[float]:
    """``rcm``: four TrigFlow angles t as flow levels ``sin t / (sin t + cos t)``; no shift.

    The identity makes rCM the same method as LCM on these levels (see ``solvers/lcm.py``).
    """
    preset = fixed_schedule("rcm")
    angles: list[float] = [math.atan(preset["first_tangent"]), *preset["angles"]]
    if request.steps > len(angles):
        logger.warning("rcm has at most %d steps: running %d", len(angles), len(angles))
    return [math.sin(t) / (math.sin(t) + math.cos(t)) for t in angles[: request.steps]]


@cache
def _fixed_schedules() -> dict[str, Any]:
    return json.loads(FIXED_SCHEDULES.read_text(encoding="utf-8"))


def fixed_schedule(name: str) -> dict[str, Any]:
    """The entry of ``configs/schedules.json`` for ``name``."""
    return _fixed_schedules()[name]


def _check_fixed_steps(name: str, asked: int, fixed: int) -> None:
    if asked != fixed:
        raise InputError(
            "steps", f"{name} has {fixed} steps for this model, not {asked}; set steps to {fixed}"
        )
