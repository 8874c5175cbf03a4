"""A control video as an input, and as channels."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.channel_parts import ControlChannels, StartImageChannels
from comfyui_wanvideo.wanvideo.conditioning.control import CONTROL, ControlInput
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.image import ImageInput
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.request_checks import check_inputs
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.points import ChannelPart
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

from ..transformer.conftest import random_transformer

CONFIG = WanConfig(dim=256, ffn_dim=512, heads=2, layers=2, in_channels=52, out_channels=16)
SPACE = latent_space_for(16)
NOISE = torch.randn(1, 16, 3, 6, 8)


def setup(**changes):
    return RunSetup(CONFIG, VideoGeometry(64, 48, 9), SPACE, **changes)


def control(*shape, **more):
    return ControlInput(latent=Timed(torch.randn(*(shape or (1, 16, 3, 6, 8)))), **more)


def test_it_is_normalised():
    value = control()
    assert torch.equal(value.prepared(setup()).latent.values, SPACE.normalise(value.latent.values))


@pytest.mark.parametrize(("fit", "expected"), [("hold", [0, 1, 1]), ("loop", [0, 1, 1])])
def test_a_shorter_clip_is_fitted_and_said(fit, expected, caplog):
    value = control(1, 16, 2, 6, 8, fit=fit)
    found = value.prepared(setup()).latent.values
    assert torch.equal(found, SPACE.normalise(value.latent.values)[:, :, expected])
    assert "the control video has 5 frames, the video 9" in caplog.text


def test_a_longer_clip_is_cut_and_said(caplog):
    value = control(1, 16, 5, 6, 8)
    found = value.prepared(setup()).latent.values
    assert torch.equal(found, SPACE.normalise(value.latent.values)[:, :, :3])
    assert "the last 8 are not used" in caplog.text


def test_another_picture_size_is_resized_and_said(caplog):
    assert control(1, 16, 3, 12, 12).prepared(setup()).latent.values.shape == (1, 16, 3, 6, 8)
    assert "control latents: made for 96x96, the video is 64x48; resized" in caplog.text


def test_a_latent_of_the_other_vae_is_refused_with_both_names():
    with pytest.raises(InputError, match=r"^control latents: .* Wan 2\.2 VAE .* Wan 2\.1 VAE"):
        control(1, 48, 3, 3, 4).check(setup())


def test_leading_and_trailing_frames_have_zeros():
    found = control().prepared(setup(leading_frames=1, trailing_frames=1)).latent.values
    assert found.shape[2] == 5
    assert not found[:, :, [0, 4]].any()


def test_a_window_has_the_frames_of_the_video():
    value = control().prepared(setup())
    assert torch.equal(value.window([2, 0]).latent.values, value.latent.values[:, :, [2, 0]])


def test_it_takes_part_in_its_steps_only():
    value = control(steps=StepRange(0.0, 0.25))
    assert [value.at(step, 4) is value for step in range(4)] == [True, True, False, False]


def test_a_model_without_control_channels_is_refused_with_the_models_that_have_them():
    with pytest.raises(InputError, match=r"input for control.*Fun Control.*control LoRA"):
        check_inputs(random_transformer(), {CONTROL: control()})


def test_the_preview_is_the_clip_and_a_mask_that_is_painted():
    value = control()
    latent, mask = value.preview()
    assert latent is value.latent.values
    assert torch.equal(mask, torch.ones(3, 6, 8))


@pytest.mark.parametrize("part", [ControlChannels(16), StartImageChannels(16)], ids=["control", "image"])
def test_without_an_input_the_channels_are_zeros(part: ChannelPart):
    assert torch.equal(part.channels(None, NOISE), torch.zeros(1, 16, 3, 6, 8))


def test_the_channels_of_a_control_video_are_its_latent():
    value = control().prepared(setup())
    assert ControlChannels(16).channels(value, NOISE) is value.latent.values


def test_a_start_image_behind_leading_frames_is_in_the_video_s_first_frame():
    mask = torch.zeros(1, 4, 3, 6, 8)
    mask[:, :, 0] = 1
    value = ImageInput(Timed(torch.randn(1, 16, 3, 6, 8)), Timed(mask))
    found = StartImageChannels(16).channels(
        value.prepared(setup(leading_frames=1)), torch.randn(1, 16, 4, 6, 8)
    )
    assert torch.equal(found[:, :, 1], SPACE.normalise(value.latent.values)[:, :, 0])
    assert not found[:, :, [0, 2, 3]].any()


def test_a_start_image_that_covers_a_part_of_the_picture_is_there_as_a_whole():
    """These models have no mask, so that a picture cannot be known in part."""
    mask = torch.zeros(1, 4, 3, 6, 8)
    mask[:, :, 0, :, :4] = 1
    value = ImageInput(Timed(torch.randn(1, 16, 3, 6, 8)), Timed(mask)).prepared(setup())
    found = StartImageChannels(16).channels(value, NOISE)
    assert torch.equal(found[:, :, 0], value.latent.values[:, :, 0])
