"""The reference picture of Fun Control."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.fun_control.inputs import FUN_REFERENCE, FunReferenceInput
from comfyui_wanvideo.wanvideo.request_checks import check_inputs

from .conftest import noise, setup_of


def test_of_several_frames_the_first_is_used_and_that_is_said(load, caplog):
    setup = setup_of(load("wan22_fun_control"))
    latent = noise(1, 16, 3, 6, 10)
    found = FunReferenceInput(latent=latent).prepared(setup)
    assert torch.equal(found.latent, setup.space.normalise(latent)[:, :, 0])
    assert "of 3 latent frames the first is used" in caplog.text


def test_another_picture_size_is_resized_and_said(load, caplog):
    found = FunReferenceInput(latent=noise(1, 16, 1, 12, 12)).prepared(setup_of(load("wan22_fun_control")))
    assert found.latent.shape == (1, 16, 6, 10)
    assert "fun_ref_image: made for 96x96, the video is 80x48; resized" in caplog.text


def test_a_latent_of_the_other_vae_is_refused_with_both_names(load):
    value = FunReferenceInput(latent=noise(1, 48, 1, 3, 5))
    with pytest.raises(InputError, match=r"^fun_ref_image: .* Wan 2\.2 VAE .* Wan 2\.1 VAE"):
        value.check(setup_of(load("wan22_fun_control")))


def test_a_window_keeps_the_whole_reference(load):
    value = FunReferenceInput(latent=noise(1, 16, 1, 6, 10)).prepared(setup_of(load("wan22_fun_control")))
    assert value.window([1, 2]) is value


@pytest.mark.parametrize("name", ["wan21_fun_control", "wan21_t2v"])
def test_a_model_without_ref_conv_is_refused_with_the_models_that_have_it(load, name):
    value = FunReferenceInput(latent=noise(1, 16, 1, 6, 10))
    with pytest.raises(InputError, match=r"fun_reference.*Fun Control 1\.1 or Wan 2\.2 Fun Control"):
        check_inputs(load(name), {FUN_REFERENCE: value})
