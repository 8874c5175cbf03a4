"""Latents fitted to a run."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

CONFIG = WanConfig(dim=256, ffn_dim=512, heads=2, layers=2, in_channels=16, out_channels=16)
SPACE = latent_space_for(16)


def setup(**changes):
    return RunSetup(CONFIG, VideoGeometry(64, 48, 9), SPACE, **changes)


def test_a_fitting_latent_is_only_normalised():
    latent = torch.randn(1, 16, 3, 6, 8)
    assert torch.equal(setup().fitted(latent, input_name="samples"), SPACE.normalise(latent))


def test_another_picture_size_is_resized_and_said(caplog):
    latent = SPACE.zero().expand(1, 16, 3, 12, 16)
    fitted = setup().fitted(latent, input_name="control")
    assert fitted.shape == (1, 16, 3, 6, 8)
    assert "control: made for 128x96, the video is 64x48; resized" in caplog.text


def test_a_constant_latent_stays_constant_when_resized():
    latent = SPACE.zero().expand(1, 16, 3, 12, 16)
    torch.testing.assert_close(
        setup().fitted(latent, input_name="control"), torch.zeros(1, 16, 3, 6, 8), atol=1e-6, rtol=0
    )


def test_a_latent_of_the_other_vae_is_refused_with_both_names():
    with pytest.raises(InputError, match=r"^control: .* 48 channels .* Wan 2\.2 VAE .* Wan 2\.1 VAE"):
        setup().fitted(torch.zeros(1, 48, 3, 3, 4), input_name="control")


def test_what_is_no_video_latent_is_refused_with_its_shape():
    with pytest.raises(InputError, match=r"^control: expected a video latent .*\(16, 6, 8\)"):
        setup().check_latent(torch.zeros(16, 6, 8), input_name="control")


def test_leading_and_trailing_frames_count():
    assert setup(leading_frames=2, trailing_frames=1).latent_frames == 6


def test_a_tensor_of_the_video_gets_zeros_for_the_other_frames():
    placed = setup(leading_frames=1, trailing_frames=1).in_place(torch.ones(1, 4, 3, 6, 8))
    assert placed[0, 0, :, 0, 0].tolist() == [0, 1, 1, 1, 0]


def test_a_tensor_that_has_the_trailing_frame_is_only_led():
    placed = setup(leading_frames=1, trailing_frames=1).in_place(torch.ones(1, 4, 4, 6, 8))
    assert placed[0, 0, :, 0, 0].tolist() == [0, 1, 1, 1, 1]


def test_any_axis_can_be_the_time_axis():
    placed = setup(leading_frames=2).in_place(torch.ones(3, 5), axis=0)
    assert placed[:, 0].tolist() == [0, 0, 1, 1, 1]
