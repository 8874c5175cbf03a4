"""Whole runs on an analytic field against results recorded from WanVideoWrapper and ComfyUI's sigmas."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.sampling.schedules import Schedule, build_schedule
from comfyui_wanvideo.wanvideo.sampling.sigmas import shifted
from comfyui_wanvideo.wanvideo.sampling.solvers import SOLVERS

TOLERANCE = 2e-5
# its float32 form divides by 1 - sigma = 2e-4 in the first step and is itself 6e-4 from its float64 result
DEIS_TOLERANCE = 8e-4

# scheduler, steps, end point, draws of noise; shift 5
WRAPPER = [
    ("unipc", 4, (0.55276, -1.24909, 2.00313, 2.87655), 0),
    ("unipc", 8, (0.61493, -1.39978, 2.00454, 3.83500), 0),
    ("unipc/beta", 4, (0.55295, -1.25637, 2.00313, 2.98946), 0),
    ("unipc/beta", 8, (0.61627, -1.40711, 2.00453, 3.75974), 0),
    ("dpm++", 4, (0.55270, -1.24654, 2.00313, 2.78855), 0),
    ("dpm++", 8, (0.61471, -1.39529, 2.00454, 3.76472), 0),
    ("dpm++_sde", 4, (0.52917, -1.60778, 2.00072, 1.85543), 4),
    ("dpm++_sde", 8, (0.34832, -1.37672, 2.01892, 1.05437), 8),
    ("euler", 4, (0.55940, -1.18652, 2.00681, 2.19764), 0),
    ("euler", 8, (0.61881, -1.34518, 2.00854, 3.16426), 0),
    ("euler/beta", 4, (0.66834, -1.29684, 2.01101, 2.35204), 0),
    ("euler/beta", 8, (0.73384, -1.40210, 2.01814, 3.15600), 0),
    ("longcat_distill_euler", 4, (0.55015, -1.23221, 2.00142, 2.57300), 0),
    ("longcat_distill_euler", 8, (0.60161, -1.34965, 2.00304, 3.23595), 0),
    ("deis", 4, (0.55277, -1.24518, 2.00269, 2.75147), 0),
    ("deis", 8, (0.61440, -1.38665, 2.00414, 3.62724), 0),
    ("lcm", 4, (0.52973, -1.30686, 1.99874, 1.02527), 4),
    ("lcm", 8, (0.38326, -1.21643, 2.03128, 0.52775), 8),
    ("res_multistep", 4, (0.55268, -1.25471, 2.00149, 3.14375), 0),
    ("res_multistep", 8, (0.61417, -1.41489, 2.00341, 4.11634), 0),
    ("er_sde", 4, (0.56280, -1.40825, 2.00101, 3.54049), 3),
    ("er_sde", 8, (0.57918, -1.65230, 2.00932, 4.36408), 7),
    ("flowmatch_causvid", 4, (0.52888, -1.15066, 2.00080, 2.04683), 0),
    ("flowmatch_causvid", 8, (0.72878, -1.41023, 2.01237, 3.30231), 0),
    ("flowmatch_distill", 4, (0.55273, -1.23961, 2.00149, 2.59823), 0),
    ("flowmatch_pusa", 4, (0.55272, -1.23966, 2.00150, 2.59757), 0),
    ("flowmatch_pusa", 8, (0.61289, -1.35942, 2.00345, 3.25113), 0),
    ("sa_ode_stable", 4, (0.56959, -1.31671, 2.00197, 3.44529), 0),
    ("sa_ode_stable", 8, (0.64278, -1.44265, 2.00439, 3.89759), 0),
    ("rcm", 4, (0.51347, -1.49191, 2.00013, 1.32867), 3),
    ("rcm", 8, (0.51347, -1.49191, 2.00013, 1.32867), 3),
    ("vibt_unipc", 4, (0.58563, -1.70932, 2.00135, 3.85889), 4),
    ("vibt_unipc", 8, (0.46693, -1.90541, 2.02455, 4.20899), 8),
]

# solver on ComfyUI's "simple" sigmas with exact timesteps, shift 5
SIMPLE = [
    ("euler", 4, (0.55272, -1.23966, 2.00150, 2.59757)),
    ("euler", 8, (0.61289, -1.35942, 2.00345, 3.25113)),
    ("euler", 20, (0.70686, -1.44001, 2.00870, 3.68474)),
    ("unipc", 4, (0.55291, -1.24806, 2.00150, 2.87041)),
    ("unipc", 8, (0.61482, -1.39876, 2.00346, 3.82790)),
    ("unipc", 20, (0.72216, -1.49453, 2.00882, 4.03399)),
    ("dpm++", 4, (0.55285, -1.24529, 2.00150, 2.77531)),
    ("dpm++", 8, (0.61460, -1.39423, 2.00346, 3.75633)),
    ("dpm++", 20, (0.72117, -1.49383, 2.00881, 4.04579)),
    ("res_multistep", 4, (0.55308, -1.25621, 2.00150, 3.15662)),
    ("res_multistep", 8, (0.61570, -1.41768, 2.00346, 4.13386)),
    ("res_multistep", 20, (0.72583, -1.51158, 2.00884, 4.15802)),
    ("dpm++_sde", 4, (0.52905, -1.60550, 1.99866, 1.84946)),
    ("dpm++_sde", 8, (0.34778, -1.37468, 2.01844, 1.04855)),
    ("dpm++_sde", 20, (0.24515, -2.05385, 2.04477, 1.78432)),
    ("lcm", 4, (0.51268, -1.48018, 2.00012, 1.36603)),
    ("lcm", 8, (0.38879, -0.89301, 2.01205, -0.21525)),
    ("lcm", 20, (0.27896, -1.51019, 2.03232, 1.62366)),
]


def end_point(result):
    return result.latent.flatten()


@pytest.mark.parametrize(("name", "steps", "expected", "draws"), WRAPPER)
def test_a_run_ends_where_the_wrapper_does(name, steps, expected, draws, make_plan, run, start, wave_noise):
    result = run(make_plan(name, steps), start)
    tolerance = DEIS_TOLERANCE if name == "deis" else TOLERANCE
    assert end_point(result) == pytest.approx(torch.tensor(expected), abs=tolerance)
    assert len(wave_noise) == draws


@pytest.mark.parametrize(("solver", "steps", "expected"), SIMPLE)
def test_a_run_on_simple_sigmas_ends_at_the_recorded_point(
    solver, steps, expected, make_plan, run, start, wave_noise
):
    levels = [shifted(1 - i / steps, 5.0) for i in range(steps)]
    simple = Schedule("euler", (*levels, 0.0), tuple(1000 * level for level in levels))
    result = run(make_plan(simple, solver=SOLVERS[solver]), start)
    assert end_point(result) == pytest.approx(torch.tensor(expected), abs=TOLERANCE)


def test_the_denoised_estimate_of_a_finished_run_uses_the_told_timestep(make_plan, run, start):
    plan = make_plan("unipc", 4)
    exact = replace(plan.schedule, timesteps=tuple(1000 * sigma for sigma in plan.schedule.sigmas[:-1]))
    told, true = run(plan, start), run(make_plan(exact), start)
    assert true.denoised == pytest.approx(true.latent, abs=1e-6)
    # 624 is told for sigma 0.62494, so the estimate differs from the end point by 0.00094 of the velocity
    assert 1e-4 < (told.denoised - told.latent).abs().max() < 1e-2


@pytest.mark.parametrize(("steps", "shift"), [(50, 100.0), (30, 100.0), (4, 1000.0)])
@pytest.mark.parametrize("name", ["unipc", "dpm++", "dpm++_sde", "deis", "vibt_unipc"])
def test_equal_whole_timesteps_do_no_harm(name, steps, shift, make_plan, run, start):
    schedule = build_schedule(name, steps, shift)
    assert len(set(schedule.timesteps)) < steps
    assert run(make_plan(schedule), start).latent.isfinite().all()
