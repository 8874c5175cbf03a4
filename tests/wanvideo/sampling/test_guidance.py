import math

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.sampling.guidance import (
    Guidance,
    cascade,
    cfg_guidance,
    guided_velocity,
    per_step,
)
from hypothesis import given
from hypothesis import strategies as st

C = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 1, 4)
U = torch.tensor([2.0, 0.0, 1.0, -1.0]).view(1, 1, 1, 1, 4)
A = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 1, 1, 4)

scales = st.floats(-20, 20, allow_nan=False)


def evaluator(calls=None, **predictions):
    def evaluate(name):
        if calls is not None:
            calls.append(name)
        return predictions[name]

    return evaluate


class TestCFG:
    def test_it_is_the_recorded_value(self):
        found = guided_velocity(evaluator(positive=C, negative=U), cfg_guidance(5.0, 1), 0)
        assert found.flatten().tolist() == [-3, 10, 11, 24]

    def test_it_is_bit_equal_to_the_usual_formula(self):
        c, u = torch.randn(2, 1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        found = guided_velocity(evaluator(positive=c, negative=u), cfg_guidance(5.7, 1), 0)
        assert torch.equal(found, u + 5.7 * (c - u))

    @pytest.mark.parametrize("scale", [1.0, 1.0 + 1e-12])
    def test_scale_1_evaluates_the_positive_pass_alone(self, scale):
        calls = []
        found = guided_velocity(evaluator(calls, positive=C, negative=U), cfg_guidance(scale, 1), 0)
        assert calls == ["positive"]
        assert torch.equal(found, C)

    def test_scale_0_evaluates_the_negative_pass_alone(self):
        calls = []
        guided_velocity(evaluator(calls, positive=C, negative=U), cfg_guidance(0.0, 1), 0)
        assert calls == ["negative"]

    def test_a_list_may_start_at_1_and_go_on_above(self):
        guidance = cfg_guidance([1.0, 1.0, 6.0], 3)
        assert [guidance.evaluations(step) for step in range(3)] == [1, 1, 2]

    def test_the_positive_pass_is_evaluated_first(self):
        calls = []
        guided_velocity(evaluator(calls, positive=C, negative=U), cfg_guidance(5.0, 1), 0)
        assert calls == ["positive", "negative"]


class TestPerStep:
    def test_a_number_holds_for_every_step(self):
        assert per_step("cfg", 6, 3) == (6.0, 6.0, 6.0)

    def test_the_last_value_of_a_short_list_is_repeated(self):
        assert per_step("cfg", [5.0, 3.0], 4) == (5.0, 3.0, 3.0, 3.0)

    def test_a_long_list_is_cut(self):
        assert per_step("cfg", [5.0, 4.0, 3.0], 2) == (5.0, 4.0)

    def test_the_list_given_stays_as_it_is(self):
        given_list = [5.0, 3.0]
        cfg_guidance(given_list, 10)
        assert given_list == [5.0, 3.0]

    @pytest.mark.parametrize("value", [[], float("nan"), [1.0, math.inf]])
    def test_what_is_no_scale_names_the_input(self, value):
        with pytest.raises(InputError, match="cfg: "):
            per_step("cfg", value, 4)


class TestCascade:
    def test_audio_guidance_is_the_recorded_value(self):
        """A + a (U - A) + g (C - U), with passes audio-free, negative, positive."""
        guidance = cascade(("none", "negative", "positive"), ((4.0,), (5.0,)))
        found = guided_velocity(evaluator(none=A, negative=U, positive=C), guidance, 0)
        assert found.flatten().tolist() == pytest.approx([3, 7, 11, 21])

    @given(a=scales, b=scales, c=scales)
    def test_it_is_the_sum_of_its_differences(self, a, b, c):
        p = torch.randn(4, 1, 2, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        names = ("p0", "p1", "p2", "p3")
        guidance = cascade(names, ((a,), (b,), (c,)))
        found = guided_velocity(evaluator(**dict(zip(names, p, strict=True))), guidance, 0)
        expected = p[0] + a * (p[1] - p[0]) + b * (p[2] - p[1]) + c * (p[3] - p[2])
        assert torch.allclose(found, expected, atol=1e-6)

    @given(a=scales, b=scales)
    def test_its_weights_sum_to_1(self, a, b):
        assert sum(cascade(("p0", "p1", "p2"), ((a,), (b,))).weights[0]) == pytest.approx(1.0)

    def test_a_pass_of_equal_neighbouring_scales_is_not_evaluated(self):
        calls = []
        guidance = cascade(("none", "image", "text"), ((5.0,), (5.0,)))
        found = guided_velocity(evaluator(calls, none=U, text=C), guidance, 0)
        assert calls == ["text", "none"]
        assert torch.allclose(found, U + 5 * (C - U))


class TestEqualPasses:
    def test_they_are_evaluated_once(self):
        calls = []
        guidance = cfg_guidance(5.0, 1).sharing_equal({"positive": "a fox", "negative": "a fox"}.get)
        found = guided_velocity(evaluator(calls, positive=C, negative=C), guidance, 0)
        assert len(calls) == 1
        assert torch.equal(found, C)

    def test_passes_of_their_own_stay_apart(self):
        guidance = cfg_guidance(5.0, 1).sharing_equal({"positive": "a fox", "negative": "blurry"}.get)
        assert guidance.evaluations(0) == 2

    def test_two_of_three_passes_share(self):
        names = ("p0", "p1", "p2")
        guidance = cascade(names, ((2.0,), (5.0,))).sharing_equal({"p0": 1, "p1": 1, "p2": 2}.get)
        calls = []
        found = guided_velocity(evaluator(calls, p0=U, p1=U, p2=C), guidance, 0)
        assert len(calls) == 2
        assert torch.allclose(found, U + 5 * (C - U))


class TestTable:
    def test_a_row_that_does_not_sum_to_1_is_refused(self):
        with pytest.raises(ValueError, match="sum to 1"):
            Guidance(("negative", "positive"), ((0.5, 0.6),))

    def test_a_row_of_another_length_is_refused(self):
        with pytest.raises(ValueError, match="one per pass"):
            Guidance(("negative", "positive"), ((1.0,),))

    def test_a_name_twice_is_refused(self):
        with pytest.raises(ValueError, match="do not fit"):
            Guidance(("positive", "positive"), ((0.5, 0.5),))

    def test_it_prints_passes_scale_and_model_runs(self):
        assert (
            str(cfg_guidance([1.0, 6.0], 3)) == "negative/positive, weight of positive 1 to 6, 5 model runs"
        )


def test_bf16_predictions_are_combined_in_their_dtype_within_rounding():
    c, u = torch.randn(2, 1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = guided_velocity(evaluator(positive=c.bfloat16(), negative=u.bfloat16()), cfg_guidance(5.0, 1), 0)
    exact = u + 5 * (c - u)
    assert found.dtype == torch.bfloat16
    assert (found - exact).norm() / exact.norm() < 2e-2
