"""Pictures to pixels and back."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.vae.pixels import (
    images_from_pixels,
    normalise_pixels,
    pixels_from_images,
    with_noise,
)


def test_pictures_survive_the_way_to_pixels_and_back():
    images = torch.rand(5, 6, 7, 3)
    pixels = pixels_from_images(images)
    assert pixels.shape == (1, 3, 5, 6, 7)
    torch.testing.assert_close(images_from_pixels(pixels), images)


def test_pixels_span_minus_one_to_one():
    pixels = pixels_from_images(torch.tensor([0.0, 0.5, 1.0]).expand(1, 1, 1, 3))
    assert pixels.flatten().tolist() == [-1.0, 0.0, 1.0]


def test_alpha_is_dropped():
    images = torch.rand(1, 2, 2, 4)
    assert torch.equal(pixels_from_images(images), pixels_from_images(images[..., :3]))


def test_something_else_than_pictures_is_refused():
    with pytest.raises(InputError, match="expected pictures"):
        pixels_from_images(torch.zeros(3, 4, 4))


def test_clips_of_a_batch_follow_each_other():
    pixels = torch.rand(2, 3, 4, 2, 2)
    images = images_from_pixels(pixels, normalization="none")
    assert images.shape == (8, 2, 2, 3)
    assert torch.equal(images[5], pixels[1, :, 1].movedim(0, -1))


def test_default_clamps_then_maps_to_zero_to_one():
    found = normalise_pixels(torch.tensor([-3.0, -1.0, 0.0, 0.5, 1.0, 3.0]), "default")
    assert found.tolist() == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]


def test_minmax_stretches_the_extremes_to_zero_and_one():
    found = normalise_pixels(torch.tensor([-3.0, 1.0, 5.0]), "minmax")
    assert found.tolist() == [0.0, 0.5, 1.0]


def test_minmax_of_a_flat_clip_is_finite():
    assert normalise_pixels(torch.full((4,), 0.3), "minmax").tolist() == [0.0] * 4


def test_none_changes_no_value():
    pixels = torch.randn(4) * 3
    assert torch.equal(normalise_pixels(pixels, "none"), pixels)


def test_another_normalization_is_refused():
    with pytest.raises(InputError, match="normalization: 'sometimes' is not one of default, minmax, none"):
        normalise_pixels(torch.zeros(1), "sometimes")


@pytest.mark.parametrize("normalization", ["default", "minmax", "none"])
def test_pixels_are_left_as_they_are(normalization):
    pixels = torch.randn(1, 3, 2, 4, 4) * 2
    before = pixels.clone()
    images_from_pixels(pixels, normalization=normalization)
    assert torch.equal(pixels, before)


def test_noise_has_the_asked_strength():
    noisy = with_noise(torch.zeros(100_000), 0.3, seed=1)
    assert noisy.std().item() == pytest.approx(0.3, rel=0.02)


def test_the_same_seed_gives_the_same_noise():
    pixels = torch.rand(1, 3, 1, 4, 4)
    assert torch.equal(with_noise(pixels, 0.1, seed=7), with_noise(pixels, 0.1, seed=7))
    assert not torch.equal(with_noise(pixels, 0.1, seed=7), with_noise(pixels, 0.1, seed=8))


def test_exact_black_gets_no_noise():
    pixels = torch.tensor([-1.0, -0.5, -1.0, 0.0])
    changed = with_noise(pixels, 0.5, seed=0) != pixels
    assert changed.tolist() == [False, True, False, True]


def test_strength_zero_changes_nothing():
    pixels = torch.rand(4)
    assert torch.equal(with_noise(pixels, 0.0, seed=0), pixels)
