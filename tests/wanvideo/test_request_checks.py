"""Inputs a model cannot serve are refused before a weight moves."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.conditioning import FamilyInput
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.request_checks import check_channels, check_filters, check_inputs, say_unused
from comfyui_wanvideo.wanvideo.sampling.filters import CFGZeroStar, TemporalScoreRescaling
from comfyui_wanvideo.wanvideo.sampling.guidance import GuidanceLevel, cfg_guidance, level_guidance
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer


@dataclass(frozen=True)
class Needy(FamilyInput):
    needs: ClassVar[str] = "a model with example weights"


@dataclass(frozen=True)
class Optional(FamilyInput):
    is_optional: ClassVar[bool] = True


@dataclass(frozen=True)
class Edit(FamilyInput):
    uses_model: ClassVar[bool] = False


class Channels:
    rank = 0
    width = 20
    required = "connect a picture"

    def channels(self, family_input, latent):
        del family_input
        return torch.zeros(1, self.width, *latent.shape[2:])


def model(in_channels=16):
    with torch.device("meta"):
        return WanTransformer(WanConfig(256, 512, 2, 1, in_channels, 16))


def test_an_input_without_weights_names_the_input_and_what_it_needs():
    with pytest.raises(InputError, match=r"an input for example, .* needs a model with example weights"):
        check_inputs(model(), {"example": Needy()})


def test_an_optional_input_is_left_out_and_that_is_said(caplog):
    caplog.set_level("INFO")
    inputs = {"clip": Optional()}
    check_inputs(model(), inputs)
    say_unused(model(), inputs)
    assert "no use for the input 'clip'" in caplog.text


def test_an_input_that_only_edits_the_latent_needs_no_model():
    accepted = {"edit": Edit()}
    check_inputs(model(), accepted)
    assert accepted["edit"].uses_model is False


def test_channels_nobody_fills_are_refused_with_their_number():
    with pytest.raises(InputError, match="takes 36 channels, and nothing here gives 20 of them"):
        check_channels(model(36), {})


def test_a_required_input_that_is_missing_is_asked_for():
    image_model = model(36)
    image_model.points.add_channels("image", Channels())
    with pytest.raises(InputError, match=r"^image_embeds: connect a picture$"):
        check_channels(image_model, {})


class Branch:
    embedder = None
    when_missing = "the model runs without its branch"

    def rows(self, family_input):
        return family_input


@pytest.mark.parametrize(("inputs", "said"), [({}, 1), ({"clip": Optional()}, 0)])
def test_a_missing_input_that_the_model_would_use_is_a_warning(inputs, said, caplog):
    extended = model()
    extended.points.context["clip"] = Branch()
    say_unused(extended, inputs)
    assert caplog.text.count(Branch.when_missing) == said


def three_passes():
    return level_guidance([GuidanceLevel("phantom", (5.0,)), GuidanceLevel("text", (7.5,))])


def test_filters_that_compare_two_passes_are_refused_on_three_with_their_names():
    with pytest.raises(InputError, match=r"^experimental_args: CFGZeroStar .* 3 passes \(negative, phantom"):
        check_filters([CFGZeroStar()], three_passes())


@pytest.mark.parametrize(
    ("filters", "guidance"),
    [((TemporalScoreRescaling(),), three_passes()), ((CFGZeroStar(),), cfg_guidance(6.0, 1))],
)
def test_other_filters_and_guidance_of_two_passes_are_accepted(filters, guidance):
    assert check_filters(filters, guidance) is None
