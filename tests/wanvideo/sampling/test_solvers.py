"""Solvers against library classes on the same sigmas and noise, their order, and their memory."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from comfyui_wanvideo.wanvideo.sampling.guidance import cfg_guidance
from comfyui_wanvideo.wanvideo.sampling.plan import SamplingPlan
from comfyui_wanvideo.wanvideo.sampling.schedules import Schedule, build_schedule
from comfyui_wanvideo.wanvideo.sampling.sigmas import shifted
from comfyui_wanvideo.wanvideo.sampling.solver import SolverHistory, log_snr, noise_ratio
from comfyui_wanvideo.wanvideo.sampling.solvers import SOLVERS
from comfyui_wanvideo.wanvideo.sampling.solvers.euler import FrameEuler
from comfyui_wanvideo.wanvideo.sampling.solvers.unipc import FrameUniPC, UniPC, UniPCState

SHAPE = (1, 4, 3, 6, 6)


def level_schedule(steps, top=0.9999, shift=5.0):
    sigmas = (*(shifted(top * (1 - i / steps), shift) for i in range(steps)), 0.0)
    return Schedule("euler", sigmas, tuple(1000 * sigma for sigma in sigmas[:-1]))


def nonlinear(x, t):
    """A velocity that no solver integrates exactly."""
    return 0.4 * torch.sin(2 * x + 3 * t) + (t - 0.3) * x - 0.2


def no_noise() -> torch.Tensor:
    raise AssertionError("a solver without randomness asked for noise")


def steps_of(schedule):
    return SamplingPlan(schedule, 0, schedule.steps, cfg_guidance(1.0, schedule.steps)).steps


def walk(solver, steps, x, *, velocity=None, noise=None):
    """The latent after ``steps`` and the solver's memory."""
    model = velocity or (lambda y, t: nonlinear(y, t / 1000))
    state, ones = solver.init(x), torch.ones_like(x)
    for step in steps:
        x, state = solver.step(model, x, step, state, noise or (lambda: ones))
    return x, state


def solve(solver, schedule, x, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return walk(solver, steps_of(schedule), x, noise=lambda: torch.randn(SHAPE, generator=generator))[0]


def solve_with(scheduler, schedule, x, seed=0):
    """The same with a diffusers scheduler object whose sigmas are replaced."""
    scheduler.set_timesteps(schedule.steps)
    scheduler.sigmas = torch.tensor(schedule.sigmas)
    scheduler.timesteps = torch.tensor(schedule.timesteps)
    generator = torch.Generator().manual_seed(seed)
    takes_generator = "generator" in scheduler.step.__code__.co_varnames
    options = {"generator": generator} if takes_generator else {}
    for timestep in scheduler.timesteps:
        x = scheduler.step(nonlinear(x, float(timestep) / 1000), timestep, x, **options).prev_sample
    return x


@pytest.fixture
def x():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("steps", [2, 4, 8, 14, 15, 20, 30])
class TestDiffusers:
    """Float32 on both sides, 5e-6 absolute; DEIS loses digits of its own (see test_deis)."""

    FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 1.0}
    TOLERANCE = 5e-6

    def distance(self, name, library, schedule, x):
        reference = solve_with(library, schedule, x)
        return float((solve(SOLVERS[name], schedule, x) - reference).abs().max())

    def test_unipc(self, steps, x):
        library = pytest.importorskip("diffusers").UniPCMultistepScheduler(**self.FLOW, solver_order=2)
        schedule = level_schedule(steps)
        assert self.distance("unipc", library, schedule, x) <= self.TOLERANCE

    @pytest.mark.parametrize(
        ("name", "algorithm"), [("dpm++", "dpmsolver++"), ("dpm++_sde", "sde-dpmsolver++")]
    )
    def test_dpmpp(self, name, algorithm, steps, x):
        library = pytest.importorskip("diffusers").DPMSolverMultistepScheduler(
            **self.FLOW, algorithm_type=algorithm
        )
        schedule = level_schedule(steps)
        assert self.distance(name, library, schedule, x) <= self.TOLERANCE

    def test_euler(self, steps, x):
        library = pytest.importorskip("diffusers").FlowMatchEulerDiscreteScheduler()
        schedule = level_schedule(steps, top=1.0)
        assert self.distance("euler", library, schedule, x) <= self.TOLERANCE

    def test_lcm(self, steps, x):
        library = pytest.importorskip("diffusers").FlowMatchLCMScheduler()
        schedule = level_schedule(steps, top=1.0)
        assert self.distance("lcm", library, schedule, x) <= self.TOLERANCE

    def test_deis(self, steps, x):
        library = pytest.importorskip("diffusers").DEISMultistepScheduler(**self.FLOW)
        # from sigma .98: its float32 form divides by 1 - sigma
        levels = level_schedule(steps, top=0.92)
        schedule = replace(levels, sigmas=(*levels.sigmas[:-1], 1e-6))
        reference = solve_with(library, schedule, x)
        assert torch.allclose(solve(SOLVERS["deis"], schedule, x), reference, rtol=0, atol=3e-5)


@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if solver.order is not None])
def test_the_measured_order_is_the_claimed_one(name, integrate, field):
    noise = torch.tensor([1.0, -0.5, 0.25, 2.0], dtype=torch.float64).view(1, 1, 1, 1, 4)
    high, low = 0.9, 0.15
    errors = []
    for steps in (64, 128, 256):
        sigmas = tuple(high + (low - high) * i / steps for i in range(steps + 1))
        found = integrate(SOLVERS[name], sigmas, field.at(noise, high))
        errors.append((found - field.at(noise, low)).abs().max().item())
    orders = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert orders == pytest.approx([SOLVERS[name].order] * 2, abs=0.15)


@pytest.mark.parametrize("name", SOLVERS)
class TestEverySolver:
    def test_steps_leave_their_input_alone(self, name, x):
        before = x.clone()
        for count in (1, 2, 3):
            walk(SOLVERS[name], steps_of(level_schedule(3))[:count], x)
        assert torch.equal(x, before)

    def test_two_runs_are_equal(self, name, x):
        schedule = level_schedule(6)
        assert torch.equal(solve(SOLVERS[name], schedule, x), solve(SOLVERS[name], schedule, x))

    def test_the_dtype_stays(self, name, x):
        found, _ = walk(SOLVERS[name], steps_of(level_schedule(4)), x.double())
        assert found.dtype == torch.float64

    def test_a_start_at_sigma_1_is_finite(self, name, x):
        for steps in (1, 2, 5, 20):
            assert solve(SOLVERS[name], level_schedule(steps, top=1.0), x).isfinite().all()

    def test_one_step_from_noise_gives_the_clean_estimate(self, name, x):
        schedule = Schedule("euler", (0.9, 0.0), (900.0,))
        if name == "bridge":
            schedule = Schedule("euler", (0.9, 0.0), (899.0,))  # its step starts one timestep above
        expected = x - 0.9 * nonlinear(x, schedule.timesteps[0] / 1000)
        if name == "rcm":
            scaled = math.hypot(0.9, 0.1) * x
            expected = scaled - 0.9 * nonlinear(scaled, 0.9)
        assert torch.allclose(solve(SOLVERS[name], schedule, x), expected, atol=1e-6)


def test_rcm_is_the_trigflow_step(x):
    """Against the update written in angles: clean = (x - sin t v) / (cos t + sin t)."""
    schedule = build_schedule("rcm", 4)
    angles = [math.atan(120), 1.5, 1.4, 1.0, 0.0]
    generator = torch.Generator().manual_seed(0)
    state = x
    for here, ahead in pairwise(angles):
        total = math.cos(here) + math.sin(here)
        velocity = nonlinear(state / total, math.sin(here) / total)
        state = math.cos(ahead) * (state - math.sin(here) * velocity) / total
        if ahead > 0:
            state = state + math.sin(ahead) * torch.randn(SHAPE, generator=generator)
    assert torch.allclose(solve(SOLVERS["rcm"], schedule, x), state, atol=2e-6)


class TestFrameEuler:
    def test_without_multipliers_it_is_euler(self, x):
        schedule = level_schedule(5)
        assert torch.equal(solve(FrameEuler(), schedule, x), solve(SOLVERS["euler"], schedule, x))

    def test_a_frame_moves_by_its_share_and_none_at_0(self, x):
        schedule = Schedule("flowmatch_pusa", (0.9, 0.5), (900.0,))
        found = solve(FrameEuler((0.0, 0.5, 1.0)), schedule, x) - x
        change = -0.4 * nonlinear(x, 0.9)
        assert torch.equal(found[:, :, 0], torch.zeros_like(found[:, :, 0]))
        assert torch.allclose(found[:, :, 1], 0.5 * change[:, :, 1], atol=1e-6)
        assert torch.allclose(found[:, :, 2], change[:, :, 2], atol=1e-6)


class TestBridge:
    def test_the_noise_is_that_of_a_brownian_bridge(self, x):
        """From t to t' the spread is sqrt((t - t') t' / t)."""
        schedule = Schedule("vibt_unipc", (0.8, 0.4, 0.0), (799.0, 399.0))
        found, _ = walk(
            SOLVERS["bridge"], steps_of(schedule)[:1], x, velocity=lambda y, t: torch.zeros_like(y)
        )
        assert torch.allclose(found - x, torch.full_like(x, math.sqrt(0.4 * 0.4 / 0.8)), atol=1e-6)

    def test_the_last_step_of_a_run_goes_to_0_without_noise(self, x):
        plan = SamplingPlan(build_schedule("vibt_unipc", 8), 0, 3, cfg_guidance(1.0, 3))
        last = plan.steps[-1]
        found, _ = walk(SOLVERS["bridge"], [last], x, velocity=lambda y, t: torch.ones_like(y))
        assert torch.allclose(x - found, torch.full_like(x, (last.timestep + 1) / 1000), atol=1e-6)


class TestSAODE:
    def test_up_to_8_steps_it_is_adams_bashforth_2(self, x):
        schedule = level_schedule(6, top=1.0, shift=1.0)
        expected, last = x, None
        for here, ahead in pairwise(schedule.sigmas):
            velocity = nonlinear(expected, here)
            mixed = velocity if last is None else 1.5 * velocity - 0.5 * last
            expected, last = expected + (ahead - here) * mixed, velocity
        assert torch.allclose(solve(SOLVERS["sa_ode"], schedule, x), expected, atol=2e-6)

    def test_above_8_steps_the_last_step_is_shortened(self, x):
        """With a constant velocity nothing but the damping 0.5 + 0.5 sigma / 0.15 is left."""
        steps = steps_of(level_schedule(20))
        found, _ = walk(SOLVERS["sa_ode"], steps, x, velocity=lambda y, t: torch.ones_like(y))
        damping = [0.5 + 0.5 * step.sigma / 0.15 if step.sigma < 0.15 else 1.0 for step in steps]
        change = sum((step.sigma_next - step.sigma) * d for step, d in zip(steps, damping, strict=True))
        assert torch.allclose(found - x, torch.full_like(x, change), atol=1e-5)


def test_log_snr_is_infinite_at_the_ends():
    assert log_snr(0.0) == math.inf
    assert log_snr(1.0) == -math.inf
    assert log_snr(0.25) == pytest.approx(math.log(3))


@pytest.mark.parametrize(("here", "ahead"), [(0.9, 0.4), (0.5, 0.01)])
def test_noise_ratio_is_the_exponential_of_the_log_snr_step(here, ahead):
    assert noise_ratio(here, ahead) == pytest.approx(math.exp(log_snr(here) - log_snr(ahead)))


def test_a_history_moves_all_its_tensors(x):
    _, state = walk(SOLVERS["unipc"], steps_of(level_schedule(4))[:3], x)
    moved = SolverHistory("unipc", 0.5, state).to("meta").state
    assert isinstance(moved, UniPCState)
    assert moved.x is not None
    assert [moved.x.device.type, *(clean.device.type for clean in moved.clean)] == ["meta"] * 3
    assert (moved.sigmas, moved.order) == (state.sigmas, state.order)


class TestFrameUniPC:
    def test_it_is_unipc_where_the_scheduler_remembers_a_view_that_was_overwritten(self, make_plan):
        """Two steps by hand with SkyReels V2's order of writes: the corrector gets the predicted latent."""
        plan = make_plan("unipc", 3)
        x, velocities = torch.randn(4), [torch.randn(4) for _ in range(3)]
        solver, state, latent = FrameUniPC(), FrameUniPC().init(x), x
        after = []
        for step, velocity in zip(plan.steps, velocities, strict=True):
            latent, state = solver.step(lambda _x, _t, v=velocity: v, latent, step, state, no_noise)
            after.append(latent)
        plain, memory = UniPC().step(
            lambda _x, _t: velocities[0], x, plan.steps[0], UniPC().init(x), no_noise
        )
        aliased = replace(memory, x=plain)
        expected, _ = UniPC().step(lambda _x, _t: velocities[1], plain, plan.steps[1], aliased, no_noise)
        assert torch.equal(after[0], plain)
        assert torch.equal(after[1], expected)
