"""Noise behind the subject."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.background_noise import noise_background
from comfyui_wanvideo.wanvideo.errors import InputError

CPU = torch.device("cpu")


def pictures(frames=2, height=24, width=32, channels=3, seed=0):
    return torch.rand(frames, height, width, channels, generator=torch.Generator().manual_seed(seed))


def half(frames=1, height=24, width=32):
    """Subject in the right half."""
    mask = torch.zeros(frames, height, width)
    mask[:, :, width // 2 :] = 1.0
    return mask


def noisy(images, mask, seed=5):
    return noise_background(images, mask, seed=seed, device=CPU)


def test_the_subject_is_kept():
    images = pictures()
    assert torch.equal(noisy(images, half()).images[:, :, 16:], images[:, :, 16:])


def test_the_background_is_replaced():
    images = pictures()
    assert not torch.isclose(noisy(images, half()).images[:, :, :16], images[:, :, :16]).all(dim=-1).any()


def test_noise_has_mean_and_spread_of_the_subject_in_each_channel():
    images = pictures(1, height=200, width=400)
    images[:, :, 200:] = torch.tensor([0.3, 0.5, 0.6]) + 0.1 * torch.randn(1, 200, 200, 3)
    noise = noisy(images, half(1, 200, 400)).images[0, :, :200].flatten(0, 1)
    subject = images[0, :, 200:].flatten(0, 1)
    torch.testing.assert_close(noise.mean(0), subject.mean(0), atol=2e-3, rtol=0)
    torch.testing.assert_close(noise.std(0), subject.std(0), atol=2e-3, rtol=0)


def test_noise_is_drawn_frame_by_frame_and_channel_by_channel():
    """With a plain picture's own generator as the reference."""
    images, size = pictures(2, 7, 9), (7, 9)
    mask = half(1, 7, 9)
    generator = torch.Generator().manual_seed(11)
    result = noisy(images, mask, seed=11).images
    for frame in range(2):
        subject = images[frame][mask[0] > 0.5]
        for channel in range(3):
            mean, std = subject[:, channel].mean().item(), subject[:, channel].std().item()
            drawn = torch.normal(mean, std, size, generator=generator).clamp(0, 1)
            torch.testing.assert_close(result[frame, :, :4, channel], drawn[:, :4], atol=1e-6, rtol=0)


def test_noise_stays_in_range():
    images = pictures().round()
    result = noisy(images, half()).images
    assert result.min() >= 0
    assert result.max() <= 1


def test_the_same_seed_gives_the_same_noise_and_another_one_another():
    images = pictures()
    assert torch.equal(noisy(images, half(), 1).images, noisy(images, half(), 1).images)
    assert not torch.equal(noisy(images, half(), 1).images, noisy(images, half(), 2).images)


def test_the_largest_seed_is_taken():
    assert noisy(pictures(1), half(), 2**64 - 1).images.isfinite().all()


def test_soft_mask_values_mix_picture_and_noise():
    images = pictures(1)
    soft = half()
    soft[:, :, :8] = 0.25
    hard = noisy(images, half()).images
    mixed = noisy(images, soft).images
    expected = 0.25 * images[:, :, :8] + 0.75 * hard[:, :, :8]
    torch.testing.assert_close(mixed[:, :, :8], expected, atol=1e-6, rtol=0)


def test_a_small_mask_is_scaled_up():
    images = pictures()
    assert torch.equal(noisy(images, half(1, 12, 16)).images, noisy(images, half()).images)


def test_masks_are_repeated_over_the_frames():
    images = pictures(5)
    masks = torch.cat([half(), 1 - half()])
    result = noisy(images, masks)
    assert torch.equal(result.images, noisy(images, masks.repeat(3, 1, 1)).images)


def test_frames_without_subject_turn_black_and_are_named():
    images = pictures(3)
    masks = half(3)
    masks[1] = 0
    result = noisy(images, masks)
    assert result.without_subject == (1,)
    assert not result.images[1].any()
    assert result.images[2, :, :16].any()


def test_a_subject_of_one_pixel_gives_a_plain_background():
    images, mask = pictures(1), torch.zeros(1, 24, 32)
    mask[0, 3, 4] = 1
    result = noisy(images, mask).images[0]
    torch.testing.assert_close(result[0, 0], images[0, 3, 4])
    assert result.flatten(0, 1).std(dim=0).max() < 1e-6


def test_a_full_mask_changes_nothing():
    images = pictures()
    assert torch.equal(noisy(images, torch.ones(1, 24, 32)).images, images)


def test_the_input_is_not_changed():
    images = pictures()
    before = images.clone()
    noisy(images, half())
    assert torch.equal(images, before)


def test_an_empty_mask_batch_is_refused():
    with pytest.raises(InputError, match=r"^mask: expected masks"):
        noisy(pictures(), torch.zeros(0, 24, 32))
