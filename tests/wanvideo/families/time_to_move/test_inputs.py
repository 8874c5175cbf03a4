"""Time-to-Move's input fitted to a run, and a run of the engine with it."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.time_to_move.edit import StepWindow
from comfyui_wanvideo.wanvideo.families.time_to_move.inputs import TIME_TO_MOVE, TimeToMoveInput, latent_mask
from comfyui_wanvideo.wanvideo.generation import GenerationRequest, generate, plan_generation
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

from ...transformer.conftest import CONFIG, random_transformer

GEOMETRY = VideoGeometry(64, 48, 9)
SPACE = latent_space_for(16)
SETUP = RunSetup(CONFIG, GEOMETRY, SPACE, seed=7)
STEPS = 4


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def movement(start=0, end=2, reference=None, mask=None):
    reference = normal(1, 16, 3, 6, 8) if reference is None else reference
    return TimeToMoveInput(reference, torch.ones(9, 48, 64) if mask is None else mask, StepWindow(start, end))


def request(value, **changes):
    return GenerationRequest(
        geometry=GEOMETRY,
        text=TextEmbeds((normal(9, CONFIG.text_width),)),
        schedule=build_schedule("euler", STEPS, 5.0),
        seed=7,
        inputs={TIME_TO_MOVE: value},
        **{"cfg": 1.0, "steps": (0, STEPS), **changes},
    )


def test_of_every_latent_frame_the_first_pixel_frame_counts():
    mask = torch.zeros(9, 4, 4)
    mask[[0, 5]] = 1.0
    assert latent_mask(mask)[0, 0, :, 0, 0].tolist() == [1.0, 0.0, 1.0]


def test_grey_counts_above_one_half():
    assert latent_mask(torch.tensor([[[0.5, 0.51]]])).flatten().tolist() == [0.0, 1.0]


def test_a_mask_is_fitted_to_the_latent_and_one_picture_holds():
    mask = torch.zeros(1, 24, 32)
    mask[:, :, 16:] = 1.0
    prepared = movement(mask=mask).prepared(SETUP)
    assert prepared.mask.shape == (1, 1, 3, 6, 8)
    assert prepared.mask[0, 0, :, :, 4:].all()
    assert not prepared.mask[0, 0, :, :, :4].any()


@pytest.mark.parametrize(
    ("frames", "sentence"), [(5, "the last 8 are not used"), (2, "holds its last frame")]
)
def test_a_reference_of_another_length_is_fitted_and_that_is_said(frames, sentence, caplog):
    prepared = movement(reference=normal(1, 16, frames, 6, 8)).prepared(SETUP)
    assert prepared.reference.shape == (1, 16, 3, 6, 8)
    assert sentence in caplog.text


def test_leading_frames_are_not_masked():
    prepared = movement().prepared(RunSetup(CONFIG, GEOMETRY, SPACE, leading_frames=1))
    assert prepared.mask[0, 0, :, 0, 0].tolist() == [0.0, 1.0, 1.0, 1.0]
    assert prepared.reference.shape[2] == 4


def test_a_latent_of_another_vae_is_refused():
    with pytest.raises(InputError, match="reference_latents: its latent has 48 channels"):
        movement(reference=torch.zeros(1, 48, 3, 3, 4)).check(SETUP)


def test_the_run_begins_at_the_start_step():
    assert plan_generation(request(movement(start=1, end=2))).count == STEPS - 1


def test_a_sampler_that_begins_later_is_not_moved():
    plan = plan_generation(request(movement(start=1, end=2), steps=(3, STEPS)))
    assert (plan.first_step, plan.count) == (3, 1)


def test_a_start_step_behind_the_run_is_refused():
    with pytest.raises(InputError, match="start_step"):
        plan_generation(request(movement(start=5, end=6)))


def test_with_a_white_mask_to_the_end_the_result_is_the_reference():
    model = random_transformer()
    value = movement(start=1, end=STEPS)
    result = generate(model, request(value), RunOptions(attention=sdpa), device="cpu")
    torch.testing.assert_close(result.latent, value.reference, atol=1e-5, rtol=1e-5)
