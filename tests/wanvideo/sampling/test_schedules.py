import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.sampling.schedules import SCHEDULER_NAMES, Schedule, build_schedule, float32
from comfyui_wanvideo.wanvideo.sampling.sigmas import TRAINING_STEPS, shifted
from comfyui_wanvideo.wanvideo.sampling.solvers import SOLVERS, solver_for
from hypothesis import given
from hypothesis import strategies as st

# recorded from WanVideoWrapper: name, steps, shift, sigmas before the terminal
RECORDED = [
    ("unipc", 4, 5, ".99996 .93745 .83328 .62494"),
    ("dpm++", 4, 5, ".99996 .93745 .83328 .62494"),
    ("dpm++_sde", 4, 5, ".99996 .93745 .83328 .62494"),
    ("unipc/beta", 4, 5, ".99996 .89667 .72822 .62494"),
    ("dpm++/beta", 4, 5, ".99996 .89667 .72822 .62494"),
    ("dpm++_sde/beta", 4, 5, ".99996 .89667 .72822 .62494"),
    ("euler", 4, 5, "1 .90971 .71732 .02441"),
    ("lcm", 4, 5, "1 .90971 .71732 .02441"),
    ("euler/beta", 4, 5, "1 .73131 .29310 .02441"),
    ("lcm/beta", 4, 5, "1 .73131 .29310 .02441"),
    ("deis", 4, 5, ".99980 .93727 .83306 .62469"),
    ("res_multistep", 4, 5, "1 .93766 .83389 .62687"),
    ("er_sde", 4, 5, "1 .93766 .83389 .62687"),
    ("flowmatch_pusa", 4, 5, "1 .93750 .83333 .62500"),
    ("sa_ode_stable", 4, 5, "1 .93750 .83333 .62500"),
    ("vibt_unipc", 4, 5, "1 .93758 .83361 .62594"),
    ("longcat_distill_euler", 4, 5, "1 .94059 .83333 .63725"),
    ("unipc", 6, 8, ".99998 .97559 .94116 .88886 .79997 .61535"),
    ("unipc/beta", 6, 8, ".99998 .95270 .86048 .75486 .66263 .61535"),
    ("euler", 6, 8, "1 .96999 .92401 .84472 .67533 .06021"),
    ("euler/beta", 6, 8, "1 .88448 .65914 .40107 .17573 .06021"),
    ("res_multistep", 6, 8, "1 .97561 .94142 .88928 .80072 .61876"),
    ("unipc", 12, 5, ".99996 .98210 .96149 .93745 .90904 .87495 .83328 .78119 .71422 .62494 .49994 .31245"),
    ("euler", 12, 5, "1 .98050 .95769 .93068 .89815 .85826 .80816 .74336 .65629 .53308 .34535 .02441"),
    (
        "sa_ode_stable",
        12,
        5,
        "1 .99655 .98584 .96682 .93750 .89465 .83333 .74645 .62500 .46175 .26416 .07975",
    ),
    ("flowmatch_causvid", 4, 5, ".999 .934 .862 .756"),
    ("flowmatch_distill", 4, 5, ".99980 .93750 .83333 .62500"),
    ("flowmatch_distill", 4, 8, ".99987 .96000 .88889 .72727"),
    ("rcm", 4, 5, ".991736 .933781 .852895 .608979"),
]
WHOLE = {"unipc", "unipc/beta", "dpm++", "dpm++/beta", "dpm++_sde", "dpm++_sde/beta", "deis", "vibt_unipc"}
FIXED_AT_FOUR = {"flowmatch_distill", "multitalk", "rcm"}
EXACT_CUSTOM = ("euler", "euler/beta", "lcm", "lcm/beta")


def usable_steps(name, steps):
    if name in FIXED_AT_FOUR:
        return 4
    return min(steps, 9) if name == "flowmatch_causvid" else steps


@pytest.mark.parametrize(("name", "steps", "shift", "expected"), RECORDED)
def test_sigmas_are_the_recorded_ones(name, steps, shift, expected):
    wanted = [float(sigma) for sigma in expected.split()]
    assert build_schedule(name, steps, shift).sigmas[:-1] == pytest.approx(wanted, abs=6e-6)


def test_unipc_is_told_the_recorded_whole_timesteps():
    told = "999 989 978 965 952 937 921 902 882 859 833 803 769 729 681 624 555 468 357 208"
    assert build_schedule("unipc", 20, 5.0).timesteps == tuple(float(t) for t in told.split())


def test_longcat_with_12_steps_ends_at_the_recorded_level():
    assert build_schedule("longcat_distill_euler", 12, 5.0).sigmas[-2] == pytest.approx(0.35714, abs=6e-6)


def test_causvid_is_told_its_list():
    assert build_schedule("flowmatch_causvid", 9).timesteps == (999, 934, 862, 756, 603, 410, 250, 140, 74)


def test_causvid_has_another_list_for_a_small_model():
    assert build_schedule("flowmatch_causvid", 4, model_dim=1536).timesteps == (1000, 750, 500, 250)


def test_multitalk_has_four_even_levels_shifted():
    wanted = [1000 * shifted(u, 7.0) for u in (1.0, 0.667, 0.334, 0.001)]
    assert build_schedule("multitalk", 4, 7.0).timesteps == pytest.approx(wanted)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
@given(steps=st.integers(1, 60), shift=st.floats(0.5, 30.0))
def test_sigmas_fall_to_the_terminal(name, steps, shift):
    if name == "longcat_distill_euler":
        steps = min(steps, 50)  # the model has 50 levels
    schedule = build_schedule(name, usable_steps(name, steps), shift)
    assert all(a > b for a, b in pairwise(schedule.sigmas))
    assert schedule.sigmas[-1] == (1e-6 if name == "deis" else 0.0)
    assert schedule.sigmas[0] <= 1.0


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_timesteps_are_a_thousand_sigma_or_cut_to_whole(name):
    schedule = build_schedule(name, usable_steps(name, 20), 5.0)
    assert len(schedule.timesteps) == len(schedule.sigmas) - 1
    for sigma, timestep in zip(schedule.sigmas, schedule.timesteps, strict=False):
        expected = math.floor(1000 * sigma + 1e-9) if name in WHOLE else 1000 * sigma
        assert timestep == pytest.approx(expected)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_every_name_has_a_solver(name):
    assert solver_for(name) in SOLVERS.values()


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("steps", [1, 3, 4, 20, 30, 37, 50])
class TestDiffusers:
    """Sigmas against the library classes the wrapper uses or copied."""

    def test_euler(self, steps, shift):
        reference = pytest.importorskip("diffusers", minversion="0.42").FlowMatchEulerDiscreteScheduler(
            shift=shift
        )
        reference.set_timesteps(steps)
        assert build_schedule("euler", steps, shift).sigmas == pytest.approx(
            reference.sigmas.tolist(), abs=1e-6
        )

    def test_euler_beta(self, steps, shift):
        library = pytest.importorskip("diffusers", minversion="0.42")
        reference = library.FlowMatchEulerDiscreteScheduler(shift=shift, use_beta_sigmas=True)
        reference.set_timesteps(steps)
        found = build_schedule("euler/beta", steps, shift)
        assert found.sigmas == pytest.approx(reference.sigmas.tolist(), abs=1e-6)

    def test_deis_and_its_whole_timesteps(self, steps, shift):
        library = pytest.importorskip("diffusers", minversion="0.42")
        reference = library.DEISMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift
        )
        reference.set_timesteps(steps)
        schedule = build_schedule("deis", steps, shift)
        assert schedule.sigmas[:-1] == pytest.approx(reference.sigmas.tolist()[:-1], abs=1e-6)
        assert schedule.timesteps == tuple(reference.timesteps.tolist())

    def test_vibt_and_its_whole_timesteps(self, steps, shift):
        library = pytest.importorskip("diffusers", minversion="0.42")
        reference = library.UniPCMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift
        )
        reference.set_timesteps(steps)
        schedule = build_schedule("vibt_unipc", steps, shift)
        assert schedule.sigmas == pytest.approx(reference.sigmas.tolist(), abs=1e-6)
        assert schedule.timesteps == tuple(reference.timesteps.tolist())

    def test_unipc_against_its_definition_in_numpy(self, steps, shift):
        base = torch.from_numpy(1.0 - np.linspace(1, 1 / TRAINING_STEPS, TRAINING_STEPS)[::-1].copy()).float()
        top = (shift * base / (1 + (shift - 1) * base))[0].item()
        spaced = np.linspace(top, 0.0, steps + 1)[:-1]
        expected = shift * spaced / (1 + (shift - 1) * spaced)
        schedule = build_schedule("unipc", steps, shift)
        assert schedule.sigmas[:-1] == pytest.approx(expected.tolist(), abs=1e-12)
        assert schedule.timesteps == tuple((expected * TRAINING_STEPS).astype(np.int64).tolist())


class TestCustomSigmas:
    SIGMAS = (1.0, 0.9, 0.7, 0.4001, 0.0)

    @pytest.mark.parametrize(
        "name", ["unipc", "dpm++", "deis", "res_multistep", "flowmatch_pusa", "euler", "lcm"]
    )
    def test_they_are_taken_as_they_are(self, name):
        assert build_schedule(name, 30, 5.0, sigmas=self.SIGMAS).sigmas == self.SIGMAS

    @pytest.mark.parametrize("name", EXACT_CUSTOM)
    def test_euler_and_lcm_are_told_them_exactly(self, name):
        told = build_schedule(name, 30, sigmas=self.SIGMAS).timesteps
        assert told == pytest.approx((1000.0, 900.0, 700.0, 400.1))

    @pytest.mark.parametrize("name", ["unipc", "dpm++_sde", "deis", "er_sde", "sa_ode_stable"])
    def test_the_others_are_told_them_cut_to_whole(self, name):
        assert build_schedule(name, 30, sigmas=self.SIGMAS).timesteps == (1000.0, 900.0, 700.0, 400.0)

    def test_a_float32_input_is_cut_like_its_decimal_value(self):
        sigmas = torch.tensor(self.SIGMAS, dtype=torch.float32).tolist()
        assert build_schedule("unipc", 30, sigmas=sigmas).timesteps == (1000.0, 900.0, 700.0, 400.0)

    @pytest.mark.parametrize("name", ["longcat_distill_euler", "vibt_unipc"])
    def test_schedules_of_their_own_levels_only_take_the_number(self, name, caplog):
        assert build_schedule(name, 30, sigmas=self.SIGMAS) == build_schedule(name, 4)
        assert "only the number of sigmas" in caplog.text

    @pytest.mark.parametrize("name", ["flowmatch_causvid", "flowmatch_distill", "rcm"])
    def test_fixed_schedules_refuse_them(self, name):
        with pytest.raises(InputError, match=f"sigmas: .*{name}"):
            build_schedule(name, 4, sigmas=self.SIGMAS)

    @pytest.mark.parametrize(
        ("sigmas", "words"),
        [
            ((1.0,), "at least 2"),
            ((14.6, 1.0, 0.0), "14.6"),
            ((1.0, 0.5, 0.6, 0.0), "must fall"),
            ((1.0, 0.5, 0.5, 0.0), "must fall"),
            ((1.0, float("nan")), "nan"),
        ],
    )
    def test_bad_values_are_named(self, sigmas, words):
        with pytest.raises(InputError, match=f"sigmas: .*{words}"):
            build_schedule("euler", 4, sigmas=sigmas)


class TestEnhanceHF:
    def test_unipc_20_becomes_21_steps(self):
        assert build_schedule("unipc", 20, 5.0, enhance_hf=True).steps == 21

    def test_the_high_half_stays_and_the_rest_is_uniform(self):
        plain, enhanced = build_schedule("unipc", 20), build_schedule("unipc", 20, enhance_hf=True)
        kept = [t for t in plain.timesteps if t > 499.5]
        assert list(enhanced.timesteps[: len(kept)]) == kept
        assert enhanced.timesteps[len(kept) :] == pytest.approx((499.5, 374.625, 249.75, 124.875))

    def test_sigmas_follow_the_told_timesteps(self):
        enhanced = build_schedule("unipc", 20, enhance_hf=True)
        assert enhanced.sigmas == pytest.approx((*(t / 1000 for t in enhanced.timesteps), 0.0))

    @pytest.mark.parametrize(("steps", "tail"), [(4, 3), (30, 6), (100, 15)])
    def test_the_tail_has_3_to_15_steps(self, steps, tail):
        schedule = build_schedule("euler", steps, enhance_hf=True)
        assert sum(t <= 500 for t in schedule.timesteps) == tail


class TestSelect:
    def schedule(self, steps=8):
        return build_schedule("euler", steps)

    def test_the_default_is_every_step(self):
        assert self.schedule().select() == (0, 8)

    def test_whole_numbers_are_step_indices(self):
        assert self.schedule().select(2, 5) == (2, 5)

    def test_an_end_beyond_the_schedule_is_its_end(self):
        assert self.schedule().select(4, 10000) == (4, 8)

    @given(boundary=st.floats(0.03, 0.99), steps=st.integers(2, 40))
    def test_the_same_sigma_splits_a_schedule_in_two(self, boundary, steps):
        schedule = self.schedule(steps)
        _, high_end = schedule.select(0, boundary)
        low_start, _ = schedule.select(boundary, -1)
        assert low_start in (high_end, high_end - 1)
        assert schedule.sigmas[high_end - 1] >= boundary >= schedule.sigmas[low_start]
        assert low_start == high_end or float32(schedule.sigmas[low_start]) == float32(boundary)

    def test_a_boundary_that_is_a_sigma_in_float32_counts_as_reached(self):
        schedule = Schedule("euler", (1.0, float32(0.9), 0.5, 0.0), (1000.0, 900.0, 500.0))
        assert schedule.select(0.9, -1) == (1, 3)
        assert schedule.select(0, 0.9) == (0, 2)

    @pytest.mark.parametrize(("start", "end"), [(3, 2), (3, 3), (0, 0), (0.5, 0.9), (0.9, 0.9), (7, 0.9)])
    def test_an_empty_run_names_both_inputs(self, start, end):
        with pytest.raises(InputError) as error:
            self.schedule().select(start, end)
        assert "start_step" in str(error.value)
        assert "end_step" in str(error.value)

    @pytest.mark.parametrize("start", [8, 30])
    def test_a_start_beyond_the_schedule_says_how_many_steps_there_are(self, start):
        with pytest.raises(InputError, match=f"start_step: {start} .*8 steps"):
            self.schedule().select(start, -1)

    def test_an_end_no_sigma_reaches_is_named(self):
        with pytest.raises(InputError, match="end_step: "):
            self.schedule().select(0, 1.5)


class TestDenoiseStrength:
    # steps -> first step at strength .99, .9, .75, .5, .25, .1, 0
    STRENGTHS = (0.99, 0.9, 0.75, 0.5, 0.25, 0.1, 0.0)
    FIRST = {
        4: (0, 0, 0, 1, 2, 3, 3),
        8: (0, 0, 1, 3, 5, 7, 7),
        20: (0, 1, 4, 9, 14, 17, 19),
        30: (0, 2, 7, 14, 22, 26, 29),
    }

    @pytest.mark.parametrize("steps", FIRST)
    def test_the_first_step_is_the_recorded_one(self, steps):
        schedule = build_schedule("unipc", steps)
        found = tuple(schedule.select_denoise(strength)[0] for strength in self.STRENGTHS)
        assert found == self.FIRST[steps]

    def test_full_strength_leaves_the_steps_alone(self):
        assert build_schedule("unipc", 8).select_denoise(1.0, 2, 6) == (2, 6)

    def test_it_goes_with_an_end_step(self):
        assert build_schedule("unipc", 8).select_denoise(0.5, 0, 6) == (3, 6)

    def test_a_start_step_beside_it_is_refused(self):
        with pytest.raises(InputError, match=r"start_step: .*denoise_strength"):
            build_schedule("unipc", 8).select_denoise(0.5, 2)

    @pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
    def test_a_strength_outside_0_to_1_is_refused(self, strength):
        with pytest.raises(InputError, match="denoise_strength: "):
            build_schedule("unipc", 8).select_denoise(strength)

    def test_pusa_starts_its_spacing_there(self):
        schedule = build_schedule("flowmatch_pusa", 4, 5.0, denoise_strength=0.5)
        wanted = [shifted(u, 5.0) for u in (0.5, 0.375, 0.25, 0.125, 0.0)]
        assert schedule.sigmas == pytest.approx(wanted)


class TestErrors:
    def test_an_unknown_scheduler_is_named_with_the_choices(self):
        with pytest.raises(InputError, match=r"scheduler: .*ddim.*unipc"):
            build_schedule("ddim", 4)

    @pytest.mark.parametrize("name", ["flowmatch_distill", "flowmatch_causvid"])
    def test_a_fixed_schedule_says_how_many_steps_it_has(self, name):
        with pytest.raises(InputError, match=r"steps: .*has 4 steps"):
            build_schedule(name, 8, model_dim=1536)

    def test_too_few_steps(self):
        with pytest.raises(InputError, match="steps: 0"):
            build_schedule("unipc", 0)

    @pytest.mark.parametrize("name", sorted(set(SCHEDULER_NAMES) - {"flowmatch_causvid", "rcm"}))
    @pytest.mark.parametrize("shift", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_shift_that_gives_no_schedule(self, name, shift):
        with pytest.raises(InputError, match="shift: "):
            build_schedule(name, 4, shift)

    @pytest.mark.parametrize("name", ["flowmatch_causvid", "rcm"])
    def test_a_schedule_of_fixed_levels_does_not_mind_the_shift(self, name):
        assert build_schedule(name, 4, 0.0) == build_schedule(name, 4, 5.0)

    @pytest.mark.parametrize(("name", "most"), [("flowmatch_causvid", 9), ("rcm", 4), ("multitalk", 4)])
    def test_more_steps_than_a_preset_has_run_as_many_and_say_so(self, name, most, caplog):
        assert build_schedule(name, 30).steps == most
        assert f"{most} steps" in caplog.text
