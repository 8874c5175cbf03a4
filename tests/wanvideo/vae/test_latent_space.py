"""The statistics of the latents, against diffusers and ComfyUI."""

import inspect

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.vae import latent_space_for


@pytest.mark.parametrize("channels", [16, 48])
def test_normalising_and_back_is_the_identity(channels):
    latent = torch.randn(2, channels, 3, 4, 5)
    space = latent_space_for(channels)
    torch.testing.assert_close(space.denormalise(space.normalise(latent)), latent, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("channels", "name"), [(16, "Wan21"), (48, "Wan22")])
def test_statistics_are_those_of_comfyui(comfyui_path, channels, name):
    import comfy.latent_formats

    latent = torch.randn(1, channels, 2, 3, 3)
    reference = getattr(comfy.latent_formats, name)()
    space = latent_space_for(channels)
    torch.testing.assert_close(space.normalise(latent), reference.process_in(latent), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(space.denormalise(latent), reference.process_out(latent), atol=1e-6, rtol=1e-6)


def test_statistics_of_wan21_are_those_of_diffusers():
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    defaults = inspect.signature(AutoencoderKLWan.__init__).parameters
    space = latent_space_for(16)
    assert space.mean == tuple(defaults["latents_mean"].default)
    assert space.std == tuple(defaults["latents_std"].default)


def test_zero_is_what_the_model_sees_as_zero():
    space = latent_space_for(48)
    assert torch.equal(space.normalise(space.zero()), torch.zeros(1, 48, 1, 1, 1))


def test_the_dtype_stays_and_the_arithmetic_is_fp32():
    space, latent = latent_space_for(16), torch.randn(1, 16, 1, 2, 2).bfloat16()
    assert torch.equal(space.normalise(latent), space.normalise(latent.float()).bfloat16())


def test_latents_of_another_width_are_refused():
    with pytest.raises(InputError, match="the latent has 48 channels, expected 16"):
        latent_space_for(16).normalise(torch.zeros(1, 48, 1, 2, 2))


def test_unknown_channel_counts_are_refused():
    with pytest.raises(InputError, match="no Wan VAE has 4 latent channels; expected 16 or 48"):
        latent_space_for(4)
