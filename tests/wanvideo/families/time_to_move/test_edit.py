"""Time-to-Move around the steps, against its rule written out."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.families.time_to_move.edit import DualClock, StepWindow
from comfyui_wanvideo.wanvideo.sampling.guidance import cfg_guidance
from comfyui_wanvideo.wanvideo.sampling.noise import start_latent
from comfyui_wanvideo.wanvideo.sampling.plan import SamplingPlan
from comfyui_wanvideo.wanvideo.sampling.sampler import sample
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule

STEPS, SEED = 6, 7
SHAPE = (1, 16, 3, 4, 4)
SCHEDULE = build_schedule("euler", STEPS, 5.0)


def normal(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


REFERENCE = normal(1)
MASK = (normal(2, (1, 1, *SHAPE[2:])) > 0).float()


def model(_pass, latent, timestep, _step):
    return torch.sin(latent + timestep / 300.0)


def run(window, steps=(0, STEPS), start=None):
    plan = SamplingPlan(
        schedule=SCHEDULE,
        first_step=steps[0],
        end_step=steps[1],
        guidance=cfg_guidance(1.0, steps[1] - steps[0]),
        seed=SEED,
    )
    begun = start_latent(SHAPE, SEED)
    x = begun.x if start is None else start
    return sample(
        model, x, plan, generator=begun.generator, edits=[DualClock(REFERENCE, MASK, window, SEED)]
    ).latent


def by_hand(window):
    noise = start_latent(SHAPE, SEED).noise

    def reference_at(sigma):
        return sigma * noise + (1 - sigma) * REFERENCE

    first = max(0, window.start)
    x = noise if window.start < 0 else reference_at(SCHEDULE.sigmas[first])
    for step in range(first, STEPS):
        sigma, sigma_next = SCHEDULE.sigmas[step : step + 2]
        x = x + (sigma_next - sigma) * model("", x, SCHEDULE.timesteps[step], step)
        if step < window.end:
            x = x * (1 - MASK) + reference_at(sigma_next) * MASK
    return x


@pytest.mark.parametrize(("start", "end"), [(0, 2), (2, 4), (3, 3), (-1, 2), (1, STEPS)])
def test_a_run_is_the_published_rule(start, end):
    window = StepWindow(start, end)
    found = run(window, (max(0, start), STEPS))
    torch.testing.assert_close(found, by_hand(window), atol=1e-5, rtol=1e-5)


def test_to_the_last_step_the_masked_part_is_the_reference():
    found = run(StepWindow(1, STEPS), (1, STEPS))
    assert torch.equal(torch.where(MASK > 0, found, REFERENCE), REFERENCE)


def test_a_run_that_goes_on_keeps_its_latent():
    window = StepWindow(0, 4)
    first = run(window, (0, 3))
    both = run(window, (3, STEPS), start=first)
    torch.testing.assert_close(both, run(window), atol=1e-5, rtol=1e-5)


def test_behind_the_window_nothing_changes():
    start = normal(3)
    found = run(StepWindow(0, 2), (3, STEPS), start=start)
    other = run(StepWindow(0, 3), (3, STEPS), start=start)
    assert torch.equal(found, other)
