"""Guidance passes made of levels."""

from dataclasses import dataclass, replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning, FamilyInput
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.passes import conditions, guidance_of, levels_of, used_passes
from comfyui_wanvideo.wanvideo.sampling.guidance import GuidanceLevel

GEOMETRY = VideoGeometry(64, 48, 9)
TEXT = TextEmbeds((torch.zeros(3, 8),), (torch.ones(3, 8),))


@dataclass(frozen=True)
class Reference(FamilyInput):
    """Has a scale of its own and a null value."""

    value: float = 1.0
    scales: tuple[float, ...] = (3.0, 3.0)

    def guidance(self, steps):
        return GuidanceLevel("reference", self.scales[:steps])

    def variant(self, *, is_on, is_negative):
        del is_negative
        return self if is_on else replace(self, value=0.0)


def made(cfg=5.0, inputs=None, text=TEXT, steps=2):
    inputs = inputs or {}
    levels = levels_of(cfg, inputs, steps)
    passes = conditions(levels, geometry=GEOMETRY, text=text, inputs=inputs)
    return guidance_of(levels, passes), passes


def value_in(condition: Conditioning) -> float:
    """The number of the reference in a pass."""
    reference = condition.inputs["reference"]
    assert isinstance(reference, Reference)
    return reference.value


def test_text_alone_makes_the_two_passes_of_classifier_free_guidance():
    guidance, passes = made()
    assert guidance.passes == ("negative", "positive")
    assert guidance.weights == ((-4.0, 5.0),) * 2
    assert passes["negative"].text is not passes["positive"].text


def test_a_level_below_the_text_adds_a_pass_between():
    guidance, passes = made(inputs={"reference": Reference()})
    assert guidance.passes == ("negative", "reference", "positive")
    assert guidance.weights[0] == pytest.approx((1 - 3.0, 3.0 - 5.0, 5.0))
    assert [value_in(passes[name]) for name in guidance.passes] == [0.0, 1.0, 1.0]


def test_only_the_last_pass_has_the_prompt():
    guidance, passes = made(inputs={"reference": Reference()})
    prompts = [passes[name].text[0] for name in guidance.passes]
    assert [bool(rows.any()) for rows in prompts] == [True, True, False]


def test_a_scale_of_one_costs_no_pass_and_keeps_the_condition_on():
    guidance, passes = made(inputs={"reference": Reference(scales=(1.0, 1.0))})
    assert guidance.passes == ("negative", "positive")
    assert value_in(passes["negative"]) == 1.0


def test_steps_with_a_scale_of_one_do_not_evaluate_the_null_pass():
    guidance, _ = made(inputs={"reference": Reference(scales=(3.0, 1.0))})
    assert [guidance.evaluations(step) for step in range(2)] == [3, 2]


def test_passes_of_equal_conditions_are_evaluated_once():
    same = TextEmbeds(TEXT.prompt_embeds, TEXT.prompt_embeds)
    guidance, _ = made(text=same)
    assert guidance.evaluations(0) == 1


def test_a_missing_negative_prompt_is_refused_when_a_pass_needs_it():
    with pytest.raises(InputError, match=r"^text_embeds: no negative prompt"):
        made(text=TextEmbeds(TEXT.prompt_embeds))


def test_a_missing_negative_prompt_is_no_matter_at_cfg_1():
    guidance, _ = made(cfg=1.0, text=TextEmbeds(TEXT.prompt_embeds))
    assert used_passes(guidance) == ["positive"]


def test_the_cascade_is_the_formula_it_stands_for():
    guidance, _ = made(inputs={"reference": Reference()})
    predictions = torch.randn(3, 4)
    weights = torch.tensor(guidance.weights[0]).unsqueeze(1)
    p0, p1, p2 = predictions
    torch.testing.assert_close((weights * predictions).sum(0), p0 + 3.0 * (p1 - p0) + 5.0 * (p2 - p1))
