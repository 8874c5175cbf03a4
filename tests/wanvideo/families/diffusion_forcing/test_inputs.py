"""A video that goes on from given frames."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.diffusion_forcing.inputs import PrefixInput
from comfyui_wanvideo.wanvideo.generation import GenerationRequest, generate
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions

from ...transformer.conftest import CONFIG, random_transformer

STEPS = 3
GENERATOR = torch.Generator().manual_seed(0)
PREFIX = torch.randn(1, 16, 2, 6, 8, generator=GENERATOR)
TEXT = TextEmbeds((torch.randn(5, CONFIG.text_width, generator=GENERATOR),))


@pytest.fixture(scope="module")
def model():
    return random_transformer()


def run(model, scheduler="euler", **inputs):
    request = GenerationRequest(
        geometry=VideoGeometry(64, 48, 13),
        text=TEXT,
        schedule=build_schedule(scheduler, STEPS, 5.0),
        steps=(0, STEPS),
        cfg=1.0,
        seed=3,
        inputs=inputs,
    )
    return generate(model, request, RunOptions(attention=sdpa), device="cpu").latent


@pytest.mark.parametrize("scheduler", ["euler", "unipc", "lcm"])
def test_the_given_frames_come_out_as_they_went_in(model, scheduler):
    result = run(model, scheduler, diffusion_forcing=PrefixInput(PREFIX))
    torch.testing.assert_close(result[:, :, :2], PREFIX, atol=1e-5, rtol=1e-5)


def test_the_other_frames_depend_on_the_given_ones(model):
    given = run(model, diffusion_forcing=PrefixInput(PREFIX))
    assert not torch.allclose(given[:, :, 2:], run(model)[:, :, 2:], atol=1e-2)


def test_the_noise_on_the_given_frames_comes_from_the_seed(model):
    first, again = (run(model, diffusion_forcing=PrefixInput(PREFIX, seed=5)) for _ in range(2))
    assert torch.equal(first, again)


def test_without_noise_the_given_frames_are_clean_for_the_model():
    assert PrefixInput(PREFIX, 0.0).frame_timesteps(700.0) == {0: 0.0, 1: 0.0}


def test_the_model_is_told_the_noise_of_the_given_frames():
    assert PrefixInput(PREFIX, 10.0).frame_timesteps(700.0) == {0: 10.0, 1: 10.0}


def test_a_window_keeps_the_given_frames_in_it():
    kept = PrefixInput(PREFIX).window([1, 2, 3]).latent
    assert torch.equal(kept, PREFIX[:, :, 1:])


def test_a_prefix_as_long_as_the_video_is_refused_with_both_lengths(model):
    with pytest.raises(InputError, match=r"^prefix_samples: 4 latent frames are given and the video has 4"):
        run(model, diffusion_forcing=PrefixInput(torch.zeros(1, 16, 4, 6, 8)))


def test_a_prefix_of_another_vae_is_refused(model):
    with pytest.raises(InputError, match=r"^prefix_samples: .*48 channels"):
        run(model, diffusion_forcing=PrefixInput(torch.zeros(1, 48, 2, 3, 4)))
