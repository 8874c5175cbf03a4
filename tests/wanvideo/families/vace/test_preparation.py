"""Pictures and masks as VACE reads them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.vace.preparation import (
    check_pictures,
    inactive_part,
    mask_channels,
    on_white,
    padded_frames,
    padded_masks,
    reactive_part,
    side_by_side,
)

SIZE = (16, 32)


def pipeline_stub() -> Any:
    """What diffusers' pipeline reads of itself there."""
    transformer = SimpleNamespace(config=SimpleNamespace(patch_size=(1, 2, 2)))
    return SimpleNamespace(transformer=transformer, vae_scale_factor_temporal=4, vae_scale_factor_spatial=8)


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_mask_channels_equal_diffusers(frames):
    from diffusers.pipelines.wan.pipeline_wan_vace import WanVACEPipeline

    masks = torch.rand(frames, *SIZE)
    given = masks[None, None].expand(1, 3, -1, -1, -1)
    no_references = cast(Any, [[]])  # annotated as a list of tensors, read as one list for each video
    expected = WanVACEPipeline.prepare_masks(pipeline_stub(), given, no_references)
    assert torch.equal(mask_channels(masks, (2, 4)), expected)


def test_masks_for_latents_of_16_pixels_have_as_many_channels():
    masks = torch.rand(5, 32, 64)
    assert mask_channels(masks, (2, 4)).shape == (1, 64, 2, 2, 4)


def test_a_video_without_pictures_is_grey():
    assert torch.equal(padded_frames(None, 5, SIZE), torch.full((5, *SIZE, 3), 0.5))


def test_missing_frames_are_grey_and_more_are_cut():
    images = torch.rand(3, *SIZE, 3)
    longer = padded_frames(images, 5, SIZE)
    assert torch.equal(longer[:3], images)
    assert bool((longer[3:] == 0.5).all())
    assert torch.equal(padded_frames(images, 1, SIZE), images[:1])


def test_without_masks_everything_is_made_anew():
    assert torch.equal(padded_masks(None, 5, SIZE, given=5), torch.ones(5, *SIZE))


def test_one_mask_serves_all_frames():
    mask = torch.rand(SIZE)
    assert torch.equal(padded_masks(mask, 3, SIZE, given=3), mask.expand(3, -1, -1))
    assert torch.equal(padded_masks(mask[None], 3, SIZE, given=3), mask.expand(3, -1, -1))


def test_frames_without_a_mask_or_without_a_picture_are_made_anew():
    masks = torch.zeros(2, *SIZE)
    assert padded_masks(masks, 5, SIZE, given=5).amax(dim=(1, 2)).tolist() == [0, 0, 1, 1, 1]
    assert padded_masks(masks[:1], 5, SIZE, given=3).amax(dim=(1, 2)).tolist() == [0, 0, 0, 1, 1]


def test_masks_without_any_picture_stay_as_they_are():
    assert not padded_masks(torch.zeros(1, *SIZE), 5, SIZE, given=0).any()


def test_masks_of_another_size_are_scaled_by_the_nearest_value():
    small = torch.tensor([[[0.0, 1.0]]])
    found = padded_masks(small, 1, SIZE, given=1)
    assert not found[..., :16].any()
    assert bool((found[..., 16:] == 1).all())


def test_more_masks_than_frames_are_cut():
    assert padded_masks(torch.rand(9, *SIZE), 5, SIZE, given=5).shape == (5, *SIZE)


def test_an_empty_mask_is_refused():
    with pytest.raises(InputError, match="input_masks"):
        padded_masks(torch.zeros(0, *SIZE), 5, SIZE, given=5)


def test_both_parts_together_are_the_video_around_grey():
    video, masks = torch.rand(2, *SIZE, 3), torch.rand(2, *SIZE)
    both = inactive_part(video, masks) + reactive_part(video, masks)
    assert torch.allclose(both - 0.5, video, atol=1e-6)


def test_a_hard_mask_keeps_one_part_and_makes_the_other_grey():
    video, masks = torch.rand(1, *SIZE, 3), torch.zeros(1, *SIZE)
    masks[..., 16:] = 1
    kept, anew = inactive_part(video, masks), reactive_part(video, masks)
    assert torch.allclose(kept[..., :16, :], video[..., :16, :], atol=1e-6)
    assert torch.allclose(anew[..., 16:, :], video[..., 16:, :], atol=1e-6)
    assert bool((kept[..., 16:, :] == 0.5).all())
    assert bool((anew[..., :16, :] == 0.5).all())


@pytest.mark.parametrize(
    ("size", "canvas", "top", "left"),
    [((10, 40), (20, 40), 5, 0), ((40, 10), (40, 80), 0, 35), ((8, 16), (8, 16), 0, 0)],
)
def test_references_stand_in_the_middle_of_white(size, canvas, top, left):
    pictures = torch.rand(2, *size, 3) * 0.9
    found = on_white(pictures, 64, 32)
    assert found.shape == (2, *canvas, 3)
    inner = found[:, top : top + size[0], left : left + size[1]]
    assert torch.equal(inner, pictures)
    assert int((found == 1).sum()) == found.numel() - pictures.numel()


def test_pictures_side_by_side_keep_their_order():
    pictures = torch.rand(3, 4, 6, 3)
    found = side_by_side(pictures)
    assert found.shape == (1, 4, 18, 3)
    assert torch.equal(found[0, :, 6:12], pictures[1])


@pytest.mark.parametrize("shape", [(4, 4, 3), (1, 4, 4, 1), (0, 4, 4, 3)])
def test_what_are_no_pictures_is_refused(shape):
    with pytest.raises(InputError, match="ref_images"):
        check_pictures(torch.zeros(shape), "ref_images")
