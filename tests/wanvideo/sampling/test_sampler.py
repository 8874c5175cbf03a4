import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import WanError
from comfyui_wanvideo.wanvideo.sampling.edits import LatentEdit
from comfyui_wanvideo.wanvideo.sampling.filters import CFGZeroStar, FreSca, TemporalScoreRescaling, ZeroInit
from comfyui_wanvideo.wanvideo.sampling.sampler import NotFiniteError, sample
from comfyui_wanvideo.wanvideo.sampling.schedules import SCHEDULER_NAMES

SHAPE = (1, 4, 3, 6, 8)
FOUR_STEPS = ("flowmatch_distill", "multitalk", "rcm")
# solvers without memory whose step depends on nothing but its own levels
ONE_STEP = (
    "euler", "euler/beta", "lcm", "lcm/beta", "longcat_distill_euler", "flowmatch_causvid", "flowmatch_pusa",
)  # fmt: skip
MULTISTEP = ("unipc", "dpm++", "dpm++_sde", "deis", "res_multistep", "er_sde", "sa_ode_stable")


def denoise(pass_name, x, timestep, step):
    t = timestep / 1000
    bias = 0.1 if pass_name == "positive" else -0.2
    return 0.4 * torch.sin(2 * x + 3 * t) + (t - 0.3) * x + bias


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Interrupt(BaseException):
    pass


class Recorder:
    def __init__(self):
        self.calls = []

    def on_step(self, step, total, sigma, denoised):
        self.calls.append((step, total, sigma, denoised))


@pytest.fixture
def latent():
    return torch.randn(SHAPE, generator=seeded(1))


class TestLoop:
    def test_the_model_is_asked_once_per_pass_and_step(self, make_plan, latent):
        asked = []

        def record(pass_name, x, timestep, step):
            asked.append((pass_name, timestep, step))
            return denoise(pass_name, x, timestep, step)

        plan = make_plan("unipc", 3, cfg=6.0)
        sample(record, latent, plan, generator=seeded())
        expected = [(name, t, i) for i, t in enumerate(plan.timesteps) for name in ("positive", "negative")]
        assert asked == expected

    def test_the_step_given_to_the_model_counts_from_the_start_of_the_run(self, make_plan, latent):
        steps = []

        def record(pass_name, x, timestep, step):
            steps.append(step)
            return denoise(pass_name, x, timestep, step)

        sample(record, latent, make_plan("euler", 8, first=4), generator=seeded())
        assert steps == [0, 1, 2, 3]

    def test_two_runs_are_equal_and_a_run_between_them_does_not_matter(self, make_plan, latent):
        first = sample(denoise, latent, make_plan("unipc", cfg=6.0), generator=seeded()).latent
        sample(denoise, latent, make_plan("dpm++_sde", 8), generator=seeded(5))
        assert torch.equal(
            sample(denoise, latent, make_plan("unipc", cfg=6.0), generator=seeded()).latent, first
        )

    def test_the_latent_given_stays_as_it_is(self, make_plan, latent):
        before = latent.clone()
        for name in SCHEDULER_NAMES:
            sample(denoise, latent, make_plan(name), generator=seeded())
        assert torch.equal(latent, before)

    def test_a_batch_is_its_samples_side_by_side(self, make_plan, latent):
        other = torch.randn(SHAPE, generator=seeded(2))
        plan = make_plan("unipc", cfg=4.0, filters=(CFGZeroStar(), FreSca(cutoff=2)))
        both = sample(denoise, torch.cat([latent, other]), plan, generator=seeded()).latent
        alone = [sample(denoise, each, plan, generator=seeded()).latent for each in (latent, other)]
        assert torch.allclose(both, torch.cat(alone), atol=1e-5)

    def test_a_bf16_model_ends_near_the_float32_one(self, make_plan, latent):
        def half(pass_name, x, timestep, step):
            return denoise(pass_name, x.bfloat16(), timestep, step)

        plan = make_plan("unipc", 8, cfg=3.0)
        exact = sample(denoise, latent, plan, generator=seeded()).latent
        found = sample(half, latent, plan, generator=seeded()).latent
        assert found.dtype == torch.float32
        assert (found - exact).norm() / exact.norm() < 2e-2

    def test_the_generator_state_is_that_after_the_last_draw(self, make_plan, latent):
        result = sample(denoise, latent, make_plan("dpm++_sde", 4), generator=seeded(3))
        expected = seeded(3)
        for _ in range(4):
            torch.randn(SHAPE, generator=expected)
        assert torch.equal(result.generator_state, expected.get_state())


class TestDenoised:
    def test_it_is_the_clean_estimate_at_the_told_timestep(self, make_plan, latent):
        plan = make_plan("unipc", 1)
        result = sample(denoise, latent, plan, generator=seeded())
        (timestep,) = plan.timesteps
        expected = latent - timestep / 1000 * denoise("positive", latent, timestep, 0)
        assert timestep == 999.0
        assert torch.allclose(result.denoised, expected, atol=1e-6)

    def test_the_observer_gets_every_step(self, make_plan, latent):
        recorder = Recorder()
        plan = make_plan("euler", 4, first=1)
        result = sample(denoise, latent, plan, generator=seeded(), observer=recorder)
        assert [call[:3] for call in recorder.calls] == [(i, 3, plan.sigmas[i]) for i in range(3)]
        assert torch.equal(recorder.calls[-1][3](), result.denoised)

    def test_the_estimate_is_made_only_when_asked_for(self, make_plan, latent):
        estimates = []

        class Watcher(Recorder):
            def on_step(self, step, total, sigma, denoised):
                if step == 1:
                    estimates.append(denoised())

        sample(denoise, latent, make_plan("euler", 3), generator=seeded(), observer=Watcher())
        assert len(estimates) == 1
        assert estimates[0].shape == latent.shape


class TestFilters:
    def test_zero_init_asks_no_model_and_stays(self, make_plan, latent):
        asked = []

        def record(pass_name, x, timestep, step):
            asked.append(step)
            return denoise(pass_name, x, timestep, step)

        plan = make_plan("euler", 4, cfg=6.0, filters=(CFGZeroStar(), ZeroInit(1)))
        sample(record, latent, plan, generator=seeded())
        assert asked == [2, 2, 3, 3]

    def test_score_rescaling_works_on_the_guided_velocity(self, make_plan, latent):
        rescaling = TemporalScoreRescaling(0.8, 1.0)
        plan = make_plan("euler", 4, first=2, end=3, cfg=6.0, filters=(rescaling,))
        found = sample(denoise, latent, plan, generator=seeded()).latent
        (timestep,), (here, ahead) = plan.timesteps, plan.sigmas
        c, u = (denoise(name, latent, timestep, 0) for name in ("positive", "negative"))
        guided = rescaling.rescaled(u + 6 * (c - u), latent, timestep)
        assert torch.allclose(found, latent + (ahead - here) * guided, atol=1e-5)


class TestSplits:
    """A schedule in two runs, with samples, generator and, where asked, solver memory handed over."""

    def in_two(self, make_plan, latent, name, *, steps=8, split=3, history="restart"):
        options = {"cfg": 3.0, "solver_history": history}
        first = sample(denoise, latent, make_plan(name, steps, end=split, **options), generator=seeded())
        generator = torch.Generator()
        generator.set_state(first.generator_state)
        plan = make_plan(name, steps, first=split, **options)
        return sample(denoise, first.latent, plan, generator=generator, solver_state=first.solver_state)

    @pytest.mark.parametrize("name", ONE_STEP)
    def test_a_one_step_solver_does_not_notice(self, name, make_plan, latent):
        whole = sample(denoise, latent, make_plan(name, 8, cfg=3.0), generator=seeded())
        assert torch.equal(self.in_two(make_plan, latent, name).latent, whole.latent)

    @pytest.mark.parametrize("name", FOUR_STEPS)
    def test_nor_on_four_fixed_steps(self, name, make_plan, latent):
        whole = sample(denoise, latent, make_plan(name, 4, cfg=3.0), generator=seeded())
        assert torch.equal(self.in_two(make_plan, latent, name, steps=4, split=2).latent, whole.latent)

    @pytest.mark.parametrize("split", [1, 2, 5, 7])
    @pytest.mark.parametrize("name", [n for n in SCHEDULER_NAMES if n not in FOUR_STEPS])
    def test_a_continuing_pair_equals_one_run_bit_for_bit(self, name, split, make_plan, latent):
        whole = sample(denoise, latent, make_plan(name, 8, cfg=3.0), generator=seeded())
        pair = self.in_two(make_plan, latent, name, split=split, history="continue")
        assert torch.equal(pair.latent, whole.latent)

    @pytest.mark.parametrize("name", MULTISTEP)
    def test_a_restarting_pair_of_a_multistep_solver_differs_a_little(self, name, make_plan, latent):
        whole = sample(denoise, latent, make_plan(name, 8, cfg=3.0), generator=seeded()).latent
        pair = self.in_two(make_plan, latent, name).latent
        assert 1e-5 < (pair - whole).norm() / whole.norm() < 0.2

    def test_a_restarting_run_hands_on_no_memory(self, make_plan, latent):
        assert sample(denoise, latent, make_plan("unipc", 4), generator=seeded()).solver_state is None

    def test_memory_of_another_solver_is_not_used(self, make_plan, latent, caplog):
        memory = sample(
            denoise, latent, make_plan("dpm++", 8, end=3, solver_history="continue"), generator=seeded()
        ).solver_state
        plan = make_plan("unipc", 8, first=3, solver_history="continue")
        found = sample(denoise, latent, plan, generator=seeded(), solver_state=memory).latent
        assert torch.equal(found, sample(denoise, latent, plan, generator=seeded()).latent)
        assert "afresh" in caplog.text

    def test_memory_of_another_noise_level_is_not_used(self, make_plan, latent, caplog):
        plan = make_plan("unipc", 8, end=3, solver_history="continue")
        memory = sample(denoise, latent, plan, generator=seeded()).solver_state
        later = make_plan("unipc", 8, first=5, solver_history="continue")
        found = sample(denoise, latent, later, generator=seeded(), solver_state=memory).latent
        assert torch.equal(found, sample(denoise, latent, later, generator=seeded()).latent)
        assert "afresh" in caplog.text

    def test_memory_of_another_latent_size_is_not_used(self, make_plan, latent, caplog):
        plan = make_plan("unipc", 8, end=3, solver_history="continue")
        memory = sample(denoise, latent[..., :4], plan, generator=seeded()).solver_state
        later = make_plan("unipc", 8, first=3, solver_history="continue")
        sample(denoise, latent, later, generator=seeded(), solver_state=memory)
        assert "another size" in caplog.text


class TestNotFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_the_step_it_appeared_at_is_named(self, value, make_plan, latent):
        def broken(pass_name, x, timestep, step):
            velocity = denoise(pass_name, x, timestep, step)
            if step == 2:
                velocity[..., 0, 0] = value
            return velocity

        plan = make_plan("unipc", 4)
        with pytest.raises(NotFiniteError, match=r"step 3 of 4 \(sigma 0\.8333\)") as error:
            sample(broken, latent, plan, generator=seeded())
        assert isinstance(error.value, WanError)
        assert (error.value.step, error.value.sigma) == (2, plan.sigmas[2])
        assert "fp32" in str(error.value)

    def test_a_broken_start_is_told_from_a_broken_step(self, make_plan, latent):
        latent[0, 0, 0, 0, 0] = float("nan")
        with pytest.raises(NotFiniteError, match="starts from") as error:
            sample(denoise, latent, make_plan("unipc", 4), generator=seeded())
        assert error.value.step == -1


class TestEnd:
    class Ends(LatentEdit):
        def __init__(self):
            self.ends = 0

        def on_end(self):
            self.ends += 1

    def test_edits_are_told_once(self, make_plan, latent):
        edit = self.Ends()
        sample(denoise, latent, make_plan("euler"), generator=seeded(), edits=[edit])
        assert edit.ends == 1

    @pytest.mark.parametrize("error", [Interrupt, RuntimeError])
    def test_interrupts_and_errors_pass_through_after_edits_are_told(self, error, make_plan, latent):
        def stopped(pass_name, x, timestep, step):
            if step == 1:
                raise error
            return denoise(pass_name, x, timestep, step)

        edit = self.Ends()
        with pytest.raises(error):
            sample(stopped, latent, make_plan("euler"), generator=seeded(), edits=[edit])
        assert edit.ends == 1
