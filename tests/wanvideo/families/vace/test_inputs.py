"""Contexts of VACE: strengths, steps, references, and their form in a run."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.decode_plan import DecodePlan
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.vace.inputs import VaceInput

from .conftest import COLUMNS, FRAMES, ROWS, context_of, setup_of


def strengths(value, step, count=4):
    active = value.at(step, count)
    return [] if active is None else [context.strength for context in active.contexts]


def test_a_list_gives_each_step_its_strength_and_zero_leaves_a_context_out():
    both = VaceInput((context_of(strength=[0.5, 0.0, 2.0]), context_of(1)))
    assert [strengths(both, step) for step in range(4)] == [[0.5, 1.0], [1.0], [2.0, 1.0], [2.0, 1.0]]


@pytest.mark.parametrize("settings", [{"strength": 0.0}, {"strength": [0.0]}, {"steps": StepRange(0.9, 1.0)}])
def test_where_no_context_takes_part_there_is_no_input(settings):
    assert VaceInput((context_of(**settings),)).at(0, 4) is None


def test_steps_have_both_ends():
    value = VaceInput((context_of(steps=StepRange(0.25, 0.5)),))
    assert [value.at(step, 4) is not None for step in range(4)] == [False, True, True, False]


def test_references_lead_the_video_and_contexts_share_their_frames():
    value = VaceInput((context_of(references=1), context_of(references=2), context_of()))
    assert value.leading_frames == 2
    assert value.decode_plan() == DecodePlan(leading_frames=2)


def normalised(model, latent):
    return setup_of(model).space.normalise(latent)


def test_a_prepared_context_has_references_in_order_then_zeros_then_the_video(model):
    given = context_of(references=2)
    found = given.prepared(setup_of(model, leading_frames=3)).channels(slice(None))
    assert found.shape == (1, 96, 3 + FRAMES, ROWS, COLUMNS)
    for frame, reference in enumerate(given.references):
        assert torch.equal(found[:, :16, frame : frame + 1], normalised(model, reference))
    assert not found[:, 16:, :2].any()  # neither made anew nor masked
    assert not found[:, :, 2].any()
    assert torch.equal(found[:, :16, 3:], normalised(model, given.inactive.values))
    assert torch.equal(found[:, 16:32, 3:], normalised(model, given.reactive.values))
    assert torch.equal(found[:, 32:, 3:], given.mask.values)


def test_trailing_frames_are_zeros(model):
    found = context_of().prepared(setup_of(model, trailing_frames=1)).channels(slice(None))
    assert found.shape[2] == FRAMES + 1
    assert not found[:, :, -1].any()


def test_preparing_leaves_the_given_latents_alone(model):
    given = context_of(references=1)
    before = given.inactive.values.clone()
    given.prepared(setup_of(model, leading_frames=1))
    assert torch.equal(given.inactive.values, before)


def test_a_window_has_its_frames_of_latents_and_mask(model):
    whole = VaceInput((context_of(references=1).prepared(setup_of(model, leading_frames=1)),))
    found = whole.window([0, 2, 3]).contexts[0].channels(slice(None))
    assert torch.equal(found, whole.contexts[0].channels(slice(None))[:, :, [0, 2, 3]])


def test_a_window_of_all_frames_is_no_window(model):
    whole = VaceInput((context_of(references=1).prepared(setup_of(model, leading_frames=1)),))
    found = whole.window(range(1 + FRAMES)).contexts[0].channels(slice(None))
    assert torch.equal(found, whole.contexts[0].channels(slice(None)))


def test_some_of_its_frames_are_those_of_the_whole(model):
    context = context_of().prepared(setup_of(model))
    assert torch.equal(context.channels(slice(1, 3)), context.channels(slice(None))[:, :, 1:3])


def test_a_longer_context_is_cut_and_it_is_said(model, caplog):
    context = context_of(frames=FRAMES + 2)
    setup = setup_of(model)
    context.check(setup)
    found = context.prepared(setup)
    assert found.mask.values.shape[2] == found.inactive.values.shape[2] == FRAMES
    assert "encoded for 17 frames, the first 9 are used" in caplog.text


def test_a_shorter_context_is_refused_with_both_lengths(model):
    with pytest.raises(InputError, match="encoded for 5 frames, this video has 9"):
        VaceInput((context_of(), context_of(frames=2))).check(setup_of(model))


def test_another_picture_size_is_resized_and_it_is_said(model, caplog):
    given = context_of(references=1)
    setup = setup_of(model, leading_frames=1)
    larger = replace(setup, geometry=replace(setup.geometry, width=128, height=64))
    assert given.prepared(larger).channels(slice(None)).shape == (1, 96, 1 + FRAMES, 8, 16)
    assert "made for 80x48, the video is 128x64; resized" in caplog.text


@pytest.mark.parametrize("part", ["video", "reference"])
def test_latents_of_another_vae_are_refused(model, part):
    given, wide = context_of(references=1), torch.zeros(1, 48, FRAMES, ROWS, COLUMNS)
    other = replace(given.inactive, values=wide)
    changed = replace(given, inactive=other) if part == "video" else replace(given, references=(wide,))
    with pytest.raises(InputError, match=r"Wan 2\.2 VAE"):
        changed.check(setup_of(model))


@pytest.mark.parametrize("strength", [[], float("nan")])
def test_strengths_that_are_no_numbers_are_refused_before_the_run(model, strength):
    with pytest.raises(InputError, match="strength"):
        context_of(strength=strength).check(setup_of(model))


def test_its_preview_is_what_is_kept_and_where_it_is_made_anew():
    given = context_of()
    latent, mask = VaceInput((given,)).preview()
    assert torch.equal(latent, given.inactive.values)
    assert mask.shape == (FRAMES, ROWS, COLUMNS)
