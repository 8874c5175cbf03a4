"""Masks and pictures of what is known, in the layout the models were trained with."""

from __future__ import annotations

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.known_frames import (
    KnownFrames,
    exaggerated,
    fitted_mask,
    mask_channels,
)
from comfyui_wanvideo.wanvideo.errors import InputError

SIZE = (2, 3)


def pictures(count: int, value: float = 1.0) -> torch.Tensor:
    return torch.full((count, 16, 24, 3), value)


def groups(known: KnownFrames) -> list[list[float]]:
    """The four mask channels of every latent frame."""
    channels = mask_channels(known.mask(SIZE), is_last_alone=known.is_last_alone)
    assert channels.shape[-2:] == SIZE
    return channels[0, :, :, 0, 0].T.tolist()


def test_a_start_image_fills_the_first_latent_frame():
    assert groups(KnownFrames(9, pictures(1))) == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_three_start_images_fill_part_of_the_second_latent_frame():
    assert groups(KnownFrames(9, pictures(3))) == [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_an_end_image_fills_the_last_channel_of_the_last_latent_frame():
    known = KnownFrames(9, pictures(1), pictures(1))
    assert groups(known) == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_an_end_image_of_its_own_is_a_latent_frame_more():
    known = KnownFrames(9, pictures(1), pictures(1), is_last_alone=True)
    assert groups(known) == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


def test_a_picture_is_one_latent_frame():
    assert groups(KnownFrames(1, pictures(1))) == [[1, 1, 1, 1]]


def test_nothing_given_is_nothing_known():
    assert groups(KnownFrames(5)) == [[0, 0, 0, 0], [0, 0, 0, 0]]


def video(known: KnownFrames, **more) -> list[float]:
    mask = more.pop("mask", known.mask(SIZE))
    found = known.video((16, 24), mask=mask, **more)
    assert found.shape == (known.total, 16, 24, 3)
    return found[:, 0, 0, 0].tolist()


def test_unknown_frames_are_grey():
    assert video(KnownFrames(5, pictures(1, 1.0), pictures(1, 0.0))) == [1, 0.5, 0.5, 0.5, 0]


def test_an_end_image_of_its_own_comes_behind_the_video():
    known = KnownFrames(5, pictures(1), pictures(1, 0.0), is_last_alone=True)
    assert video(known) == [1, 0.5, 0.5, 0.5, 0.5, 0]


def test_padding_stands_in_unknown_frames_and_its_last_picture_goes_on():
    padding = torch.cat([pictures(2, 0.25), pictures(1, 0.75)])
    assert video(KnownFrames(5, pictures(1)), padding=padding) == [1, 0.25, 0.75, 0.75, 0.75]


def test_padding_leaves_frames_alone_that_the_mask_says_are_known():
    mask = torch.zeros(5, *SIZE)
    mask[3] = 1
    assert video(KnownFrames(5), mask=mask, padding=pictures(1, 0.25)) == [0.25, 0.25, 0.25, 0.5, 0.25]


@pytest.mark.parametrize(
    ("start", "end", "kept"), [(9, 0, (5, 0)), (0, 9, (0, 5)), (9, 2, (3, 2)), (1, 9, (1, 4)), (3, 2, (3, 2))]
)
def test_pictures_the_video_has_no_room_for_are_cut_and_said(start, end, kept):
    known = KnownFrames(5, pictures(start) if start else None, pictures(end) if end else None)
    fitted, said = known.cut()
    assert (fitted.start_count, fitted.end_count) == kept
    assert bool(said) == (kept != (start, end))


def test_a_picture_has_no_room_for_two():
    with pytest.raises(InputError, match="end_image: a video of 1 frame"):
        KnownFrames(1, pictures(1), pictures(1)).cut()


def test_of_several_end_images_the_last_are_kept():
    ends = torch.cat([pictures(3, 0.0), pictures(2, 1.0)])
    fitted, _ = KnownFrames(1, None, ends).cut()
    assert fitted.end is not None
    assert fitted.end.mean() == 1.0


@pytest.mark.parametrize("count", [2, 5, 9])
def test_a_mask_of_another_length_is_cut_or_filled_with_unknown(count):
    mask = fitted_mask(torch.ones(count, 16, 24), 5, SIZE)
    assert mask.shape == (5, *SIZE)
    assert mask[:, 0, 0].tolist() == [float(frame < count) for frame in range(5)]


def test_a_single_mask_is_that_of_the_first_frame():
    assert fitted_mask(torch.ones(16, 24), 5, SIZE).sum() == SIZE[0] * SIZE[1]


def test_something_else_than_a_mask_is_refused():
    with pytest.raises(InputError, match="temporal_mask"):
        fitted_mask(torch.ones(1, 1, 16, 24), 5, SIZE)


def test_unknown_frames_are_exaggerated_about_the_first():
    latent = torch.tensor([1.0, 2.0, 4.0]).view(1, 1, 3, 1, 1).expand(1, 16, 3, *SIZE)
    mask = mask_channels(KnownFrames(9, pictures(5)).mask(SIZE))
    found = exaggerated(latent, mask, 0.5)
    assert found[0, 0, :, 0, 0].tolist() == [1.0, 2.0, 5.5]


def test_no_exaggeration_changes_nothing():
    latent = torch.randn(1, 16, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    found = exaggerated(latent, torch.zeros(1, 4, 3, *SIZE), 0.0)
    assert torch.allclose(found, latent, atol=1e-6)
