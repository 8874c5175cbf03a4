"""Pictures at their place in time."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.frames import (
    Clip,
    control_timeline,
    first_frames,
    fit_mask,
    start_end_timeline,
    with_inpaint_mask,
)
from comfyui_wanvideo.wanvideo.errors import InputError
from hypothesis import given
from hypothesis import strategies as st

LEVEL = 0.25


def pictures(frames, height=4, width=6, channels=3, seed=0):
    return torch.rand(frames, height, width, channels, generator=torch.Generator().manual_seed(seed))


def timeline(frames=9, **parts):
    return start_end_timeline(frames, empty_level=LEVEL, **parts)


def kept(line):
    """Frames with mask 0."""
    return [index for index, mask in enumerate(line.masks) if not mask.any()]


def test_start_and_end_stand_at_the_ends():
    start, end = pictures(2), pictures(3, seed=1)
    line = timeline(start=Clip(start, 0), end=Clip(end, -1))
    assert torch.equal(line.frames[:2], start)
    assert torch.equal(line.frames[6:], end)
    assert (line.frames[2:6] == LEVEL).all()


def test_masks_are_0_on_given_frames_and_1_elsewhere():
    line = timeline(start=Clip(pictures(2), 0), end=Clip(pictures(3), -1))
    assert kept(line) == [0, 1, 6, 7, 8]
    assert (line.masks[2:6] == 1).all()
    assert line.masks.shape == (9, 4, 6)


def test_clips_stand_at_their_index():
    line = timeline(start=Clip(pictures(2), 3), end=Clip(pictures(2), 6))
    assert kept(line) == [3, 4, 5, 6]


@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 11))
def test_a_start_clip_is_cut_at_the_end_of_the_video(frames, given_frames, index):
    index = min(index, frames - 1)
    clip = pictures(given_frames)
    line = start_end_timeline(frames, empty_level=LEVEL, start=Clip(clip, index))
    used = min(given_frames, frames - index)
    assert kept(line) == list(range(index, index + used))
    assert torch.equal(line.frames[index : index + used], clip[:used])
    assert bool(line.remarks) == (used < given_frames)


@given(st.integers(1, 12), st.integers(1, 14), st.integers(-12, 11))
def test_an_end_clip_is_cut_at_its_beginning(frames, given_frames, index):
    index = max(min(index, frames - 1), -frames)
    clip = pictures(given_frames)
    line = start_end_timeline(frames, empty_level=LEVEL, end=Clip(clip, index))
    last = index % frames
    used = min(given_frames, last + 1)
    assert kept(line) == list(range(last + 1 - used, last + 1))
    assert torch.equal(line.frames[last + 1 - used : last + 1], clip[-used:])
    assert bool(line.remarks) == (used < given_frames)


def test_the_end_covers_the_start_and_says_so():
    end = pictures(5, seed=1)
    line = timeline(6, start=Clip(pictures(4), 0), end=Clip(end, -1))
    assert torch.equal(line.frames[1:], end)
    assert line.remarks == ("end_image covers 3 frames of start_image",)


def test_a_cut_clip_is_remarked_with_both_lengths():
    line = timeline(3, start=Clip(pictures(5), 1))
    assert line.remarks == ("start_image: 5 frames given, the 2 that fit are used",)


def test_what_fits_needs_no_remark():
    assert timeline(start=Clip(pictures(4), 0), end=Clip(pictures(5), -1)).remarks == ()


def test_control_fills_the_empty_frames_and_is_painted_over():
    control, start = pictures(20, seed=2), pictures(2)
    line = timeline(start=Clip(start, 0), control=control)
    assert torch.equal(line.frames[2:], control[2:9])
    assert torch.equal(line.frames[:2], start)
    assert kept(line) == [0, 1]


def test_frames_after_a_short_control_stay_empty():
    line = timeline(end=Clip(pictures(1), -1), control=pictures(4, seed=2))
    assert (line.frames[4:8] == LEVEL).all()


@pytest.mark.parametrize("given_frames", [3, 9, 12])
def test_control_alone_is_known_and_what_follows_is_not(given_frames):
    control = pictures(given_frames)
    line = control_timeline(control, 9, empty_level=LEVEL)
    count = min(given_frames, 9)
    assert torch.equal(line.frames[:count], control[:count])
    assert (line.frames[count:] == LEVEL).all()
    assert kept(line) == list(range(count))
    assert (line.masks[count:] == 1).all()


def test_an_alpha_channel_is_dropped():
    line = timeline(
        start=Clip(pictures(1, channels=4), 0),
        end=Clip(pictures(1, channels=4), -1),
        control=pictures(9, channels=4),
    )
    assert line.frames.shape[-1] == 3
    assert control_timeline(pictures(2, channels=4), 9, empty_level=0.5).frames.shape[-1] == 3


def test_an_inpaint_mask_leaves_known_frames_alone():
    mask = torch.rand(9, 4, 6)
    line = with_inpaint_mask(timeline(start=Clip(pictures(1), 0)), mask)
    assert not line.masks[0].any()
    assert torch.equal(line.masks[1:], mask[1:])


def test_an_inpaint_mask_changes_no_picture():
    before = timeline(start=Clip(pictures(1), 0))
    assert torch.equal(with_inpaint_mask(before, torch.rand(1, 4, 6)).frames, before.frames)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_a_mask_is_cut_or_repeated_from_its_beginning(count):
    mask = torch.rand(count, 4, 6)
    fitted = fit_mask(mask, 5, torch.Size((4, 6)))
    assert all(torch.equal(fitted[frame], mask[frame % count]) for frame in range(5))


def test_a_mask_is_scaled_to_the_nearest_value():
    mask = torch.tensor([[0.0, 1.0], [0.25, 0.5]])
    fitted = fit_mask(mask, 1, torch.Size((4, 6)))
    assert torch.equal(fitted[0], mask.repeat_interleave(2, 0).repeat_interleave(3, 1))


@pytest.mark.parametrize("shape", [(0, 4, 6), (4,), (1, 1, 4, 6), (1, 0, 6)])
def test_a_mask_that_is_none_is_refused_with_its_shape(shape):
    with pytest.raises(
        InputError, match=r"^inpaint_mask: expected masks \[frames, height, width\], got shape"
    ):
        fit_mask(torch.zeros(shape), 3, torch.Size((4, 6)), input_name="inpaint_mask")


@pytest.mark.parametrize("index", [9, 100, -10])
def test_an_index_outside_the_video_is_refused_with_the_allowed_range(index):
    with pytest.raises(InputError, match=f"^start_index: {index} lies outside .* 9 frames use -9 to 8"):
        timeline(start=Clip(pictures(1), index))
    with pytest.raises(InputError, match=f"^end_index: {index} lies outside"):
        timeline(end=Clip(pictures(1), index))


def test_a_timeline_without_pictures_is_refused():
    with pytest.raises(InputError, match="connect start_image, end_image or control_images"):
        timeline()


def test_pictures_of_another_size_are_refused_with_both_sizes():
    with pytest.raises(InputError, match=r"^end_image: 8x5 pixels, expected 6x4"):
        timeline(start=Clip(pictures(1), 0), end=Clip(pictures(1, height=5, width=8), -1))
    with pytest.raises(InputError, match=r"^control_images: 8x5 pixels, expected 6x4"):
        timeline(start=Clip(pictures(1), 0), control=pictures(1, height=5, width=8))


def test_clips_without_frames_are_refused():
    with pytest.raises(InputError, match=r"^start_image: expected pictures .* got shape \(0, 4, 6, 3\)"):
        timeline(start=Clip(pictures(0), 0))
    with pytest.raises(InputError, match=r"^end_image: expected pictures"):
        timeline(end=Clip(pictures(0), -1))
    with pytest.raises(InputError, match=r"^control_images: expected pictures"):
        control_timeline(pictures(0), 9, empty_level=0.5)


def test_first_frames_are_the_first_frames():
    video = pictures(6)
    assert torch.equal(first_frames(video, 4), video[:4])


def test_a_shorter_video_is_taken_whole():
    video = pictures(3)
    assert torch.equal(first_frames(video, 10), video)


def test_first_frames_do_not_keep_the_video_in_memory():
    video = pictures(6)
    assert first_frames(video, 1).untyped_storage().nbytes() == video[0].nbytes


def test_first_frames_are_float32():
    assert first_frames(pictures(2).bfloat16(), 1).dtype == torch.float32


def test_an_empty_video_is_refused():
    with pytest.raises(InputError, match=r"^input_video_frames: the video has no frames"):
        first_frames(pictures(0), 1)
