"""An analytic model, and short ways to plan and run it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfyui_wanvideo.wanvideo.sampling.guidance import cfg_guidance
from comfyui_wanvideo.wanvideo.sampling.plan import SamplingPlan
from comfyui_wanvideo.wanvideo.sampling.sampler import SampleResult, sample
from comfyui_wanvideo.wanvideo.sampling.schedules import Schedule, build_schedule
from comfyui_wanvideo.wanvideo.sampling.solver import AnySolver
from torch import Tensor

MEAN = (0.5, -1.0, 2.0, 0.0)
SPREAD = (0.3, 1.0, 0.1, 2.0)
START = (1.0, -0.5, 0.25, 2.0)


class GaussianField:
    """Exact velocity of data ``N(mean, spread^2)`` per element, and the flow through it."""

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        self.mean = mean
        self.spread = spread

    def velocity(self, x: Tensor, t: float) -> Tensor:
        """Noise minus clean at ``x`` and level ``t`` in 0 to 1."""
        mean, variance = self.mean.to(x), self.spread.to(x).square()
        centred = x - (1 - t) * mean
        return (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t * t) * centred - mean

    def at(self, noise: Tensor, t: float) -> Tensor:
        """Point at level ``t`` of the path that starts from ``noise``."""
        mean, spread = self.mean.to(noise), self.spread.to(noise)
        return (1 - t) * mean + torch.sqrt(((1 - t) * spread) ** 2 + t * t) * noise


@pytest.fixture
def field() -> GaussianField:
    """The four-element field of the solver fixtures."""
    return GaussianField(torch.tensor(MEAN).view(1, 1, 1, 1, 4), torch.tensor(SPREAD).view(1, 1, 1, 1, 4))


@pytest.fixture
def start() -> Tensor:
    """Its start latent."""
    return torch.tensor(START).view(1, 1, 1, 1, 4)


@pytest.fixture
def wave_noise(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Replaces noise by ``cos(1.7 (4 k + j) + 0.3)``; the list holds the draws made."""
    draws: list[Tensor] = []

    def draw(shape: torch.Size, generator: torch.Generator) -> Tensor:
        count = shape.numel()
        j = torch.arange(count, dtype=torch.float64) + count * len(draws)
        draws.append(torch.cos(1.7 * j + 0.3).float().view(shape))
        return draws[-1]

    monkeypatch.setattr("comfyui_wanvideo.wanvideo.sampling.noise.draw_noise", draw)
    return draws


@pytest.fixture
def make_plan() -> Callable[..., SamplingPlan]:
    """``make_plan("unipc", 4)``: a plan with one pass; keywords go to the plan."""

    def make(
        schedule: str | Schedule,
        steps: int = 4,
        *,
        shift: float = 5.0,
        first: int = 0,
        end: int | None = None,
        cfg: float = 1.0,
        **fields: Any,
    ) -> SamplingPlan:
        if isinstance(schedule, str):
            schedule = build_schedule(schedule, steps, shift)
        end = schedule.steps if end is None else end
        guidance = fields.pop("guidance", None) or cfg_guidance(cfg, end - first)
        return SamplingPlan(schedule, first, end, guidance, **fields)

    return make


@pytest.fixture
def run(field: GaussianField) -> Callable[..., SampleResult]:
    """``run(plan, latent)``: a run of the field with the generator of seed 0."""

    def run_plan(plan: SamplingPlan, latent: Tensor, **options: Any) -> SampleResult:
        def denoise(pass_name: str, x: Tensor, timestep: float, step: int) -> Tensor:
            return field.velocity(x, timestep / 1000)

        options.setdefault("generator", torch.Generator().manual_seed(0))
        return sample(denoise, latent, plan, **options)

    return run_plan


@pytest.fixture
def integrate(field: GaussianField) -> Callable[[AnySolver, tuple[float, ...], Tensor], Tensor]:
    """``integrate(solver, sigmas, x)``: a solver alone, in the dtype of ``x``, without noise."""

    def integrate_field(solver: AnySolver, sigmas: tuple[float, ...], x: Tensor) -> Tensor:
        schedule = Schedule("euler", sigmas, tuple(1000 * sigma for sigma in sigmas[:-1]))
        plan = SamplingPlan(schedule, 0, schedule.steps, cfg_guidance(1.0, schedule.steps))
        state, nothing = solver.init(x), torch.zeros_like(x)
        for step in plan.steps:
            x, state = solver.step(lambda y, t: field.velocity(y, t / 1000), x, step, state, lambda: nothing)
        return x

    return integrate_field
