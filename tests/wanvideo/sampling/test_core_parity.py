"""Solvers against ComfyUI's own samplers on the same sigmas and noise."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_wanvideo.wanvideo.sampling.guidance import cfg_guidance
from comfyui_wanvideo.wanvideo.sampling.plan import SamplingPlan
from comfyui_wanvideo.wanvideo.sampling.schedules import Schedule
from comfyui_wanvideo.wanvideo.sampling.sigmas import shifted
from comfyui_wanvideo.wanvideo.sampling.solvers import SOLVERS

SHAPE = (1, 4, 3, 6, 6)
TOLERANCE = 5e-6


def velocity(x, t):
    return 0.4 * torch.sin(2 * x + 3 * t) + (t - 0.3) * x - 0.2


class CoreModel:
    """Velocity model in the shape core's samplers call."""

    def __init__(self, model_sampling):
        patcher = SimpleNamespace(get_model_object=lambda name: model_sampling)
        self.inner_model = SimpleNamespace(model_patcher=patcher)

    def __call__(self, x, sigma):
        return x - sigma * velocity(x, float(sigma))


@pytest.mark.parametrize("steps", [4, 8, 20])
@pytest.mark.parametrize(
    ("name", "function", "options"),
    [
        ("euler", "sample_euler", {}),
        ("res_multistep", "sample_res_multistep", {}),
        ("dpm++", "sample_dpmpp_2m_sde", {"eta": 0.0}),
        ("dpm++_sde", "sample_dpmpp_2m_sde", {"eta": 1.0}),
        ("lcm", "sample_lcm", {}),
    ],
)
def test_the_end_point_is_that_of_core(name, function, options, steps, comfyui_path):
    from comfy.k_diffusion import sampling
    from comfy.model_sampling import CONST, ModelSamplingDiscreteFlow

    class Flow(ModelSamplingDiscreteFlow, CONST):
        pass

    sigmas = (*(shifted(0.9999 * (1 - i / steps), 5.0) for i in range(steps)), 0.0)
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    core_noise, noise = (torch.Generator().manual_seed(2) for _ in range(2))
    if name not in ("euler", "res_multistep"):
        options = {**options, "noise_sampler": lambda *_: torch.randn(SHAPE, generator=core_noise)}
    expected = getattr(sampling, function)(
        CoreModel(Flow()), start, torch.tensor(sigmas), disable=True, **options
    )
    schedule = Schedule("euler", sigmas, tuple(1000 * sigma for sigma in sigmas[:-1]))
    plan = SamplingPlan(schedule, 0, steps, cfg_guidance(1.0, steps))
    x, state = start, SOLVERS[name].init(start)
    for step in plan.steps:
        x, state = SOLVERS[name].step(
            lambda y, t: velocity(y, t / 1000), x, step, state, lambda: torch.randn(SHAPE, generator=noise)
        )
    assert torch.allclose(x, expected, rtol=0, atol=TOLERANCE)
