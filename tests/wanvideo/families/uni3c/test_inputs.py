"""Uni3C's input fitted to a run, and a run of the engine with it."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.uni3c.family import FAMILY
from comfyui_wanvideo.wanvideo.families.uni3c.inputs import UNI3C, Uni3CInput
from comfyui_wanvideo.wanvideo.generation import GenerationRequest, check_request, generate, run_size
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

from ...transformer.conftest import CONFIG, random_transformer, relative_error
from ..conftest import extended

GEOMETRY = VideoGeometry(64, 48, 9)
SPACE = latent_space_for(16)
SETUP = RunSetup(CONFIG, GEOMETRY, SPACE)
STEPS = 4


def normal(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TEXT = TextEmbeds((normal(9, CONFIG.text_width),), (normal(5, CONFIG.text_width, seed=4),))


def given(controlnet, frames=3, size=(6, 8), **changes):
    return Uni3CInput(controlnet, Timed(normal(1, 16, frames, *size)), **changes)


def request(value, **changes):
    return GenerationRequest(
        geometry=GEOMETRY,
        text=TEXT,
        schedule=build_schedule("euler", STEPS, 5.0),
        steps=(0, STEPS),
        seed=7,
        inputs={} if value is None else {UNI3C: value},
        **{"cfg": 3.0, **changes},
    )


@pytest.fixture(scope="module")
def model():
    return extended(random_transformer(), FAMILY)


def run(model, value):
    return generate(model, request(value), RunOptions(attention=sdpa), device="cpu").latent


def test_the_render_is_normalised(controlnet):
    value = given(controlnet)
    torch.testing.assert_close(value.prepared(SETUP).render.values, SPACE.normalise(value.render.values))


def test_a_render_of_another_size_is_resized_and_that_is_said(controlnet, caplog):
    assert given(controlnet, size=(4, 10)).prepared(SETUP).render.values.shape == (1, 16, 3, 6, 8)
    assert "render_latent: made for 80x32, the video is 64x48; resized" in caplog.text


@pytest.mark.parametrize(
    ("frames", "sentence"), [(5, "the last 8 are not used"), (2, "holds its last frame")]
)
def test_a_render_of_another_length_is_fitted_and_that_is_said(controlnet, frames, sentence, caplog):
    assert given(controlnet, frames).prepared(SETUP).render.values.shape == (1, 16, 3, 6, 8)
    assert sentence in caplog.text


def test_leading_frames_have_no_render(controlnet):
    setup = replace(SETUP, leading_frames=1)
    render = given(controlnet).prepared(setup).render.values
    assert render.shape[2] == 4
    assert not render[:, :, 0].any()


def test_a_mask_has_four_entries_for_a_latent_frame_and_three_empty_ones_first(controlnet):
    mask = Timed(torch.ones(9, 24, 32), axis=0, clock="pixel")
    prepared = given(controlnet, mask=mask).prepared(replace(SETUP, leading_frames=1)).mask
    assert prepared is not None
    assert prepared.values.shape == (1, 1, 16, 48, 64)
    assert prepared.values[0, 0, :, 0, 0].tolist() == [False] * 7 + [True] * 9


def test_a_mask_of_one_picture_holds(controlnet):
    mask = Timed(torch.ones(1, 48, 64), axis=0, clock="pixel")
    prepared = given(controlnet, mask=mask).prepared(SETUP).mask
    assert prepared is not None
    assert prepared.values[0, 0, 3:].all()


def test_a_controlnet_of_another_width_is_refused_with_both(controlnet):
    wider = replace(SETUP, config=replace(CONFIG, dim=384))
    with pytest.raises(InputError, match=r"models of width 256, this model has width 384"):
        given(controlnet).check(wider)


def test_a_render_of_another_vae_is_refused(controlnet):
    value = Uni3CInput(controlnet, Timed(torch.zeros(1, 48, 3, 3, 4)))
    with pytest.raises(InputError, match="render_latent: its latent has 48 channels"):
        value.check(SETUP)


def test_a_model_with_other_latents_is_refused(controlnet):
    with pytest.raises(InputError, match="latents of 16 channels"):
        check_request(random_transformer(), request(given(controlnet)))


def test_a_render_changes_the_video(model, controlnet):
    assert relative_error(run(model, given(controlnet)), run(model, None)) > 1e-2


@pytest.mark.parametrize("changes", [{"strength": 0.0}, {"steps": StepRange(0.9, 1.0)}])
def test_inactive_it_changes_nothing(model, controlnet, changes):
    assert torch.equal(run(model, given(controlnet, **changes)), run(model, None))


def test_the_memory_plan_counts_its_tokens(model, controlnet):
    stream = GEOMETRY.tokens * controlnet.network.config.width * 4
    found = run_size(model, request(given(controlnet))).working_bytes
    assert found >= stream
    masked = given(controlnet, mask=Timed(torch.ones(1, 48, 64), axis=0, clock="pixel"))
    assert run_size(model, request(masked)).working_bytes > found
