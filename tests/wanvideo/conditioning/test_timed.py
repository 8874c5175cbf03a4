"""Tensors that run along the video."""

from dataclasses import dataclass

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed, windowed


def counted(length, axis=2, dims=5):
    """A tensor whose values are the indices along its time axis."""
    shape = [1] * dims
    shape[axis] = length
    return torch.arange(length).reshape(shape)


def entries(timed):
    return timed.values.flatten().tolist()


def test_a_window_of_latent_frames_takes_them_in_the_order_asked():
    assert entries(Timed(counted(6)).window([4, 1, 2])) == [4, 1, 2]


def test_a_window_of_all_frames_is_the_whole():
    assert entries(Timed(counted(5)).window(range(5))) == list(range(5))


def test_a_pixel_window_from_the_beginning_has_one_frame_and_then_four_each():
    assert entries(Timed(counted(13), clock="pixel").window([0, 1, 2])) == list(range(9))


def test_a_pixel_window_from_the_middle_is_again_a_video_of_1_plus_4n_frames():
    assert entries(Timed(counted(13), clock="pixel").window([1, 2])) == [4, 5, 6, 7, 8]


def test_a_clock_of_several_entries_per_frame_keeps_them_together():
    assert entries(Timed(counted(6, axis=1, dims=3), axis=1, clock=2).window([2, 0])) == [4, 5, 0, 1]


@dataclass(frozen=True)
class Part:
    track: Timed
    name: str = "part"


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    still: torch.Tensor


def test_windows_reach_into_tuples_and_dataclasses():
    whole = Whole((Part(Timed(counted(4))), Part(Timed(counted(4)))), torch.zeros(3))
    cut = windowed(whole, [1, 3])
    assert [entries(part.track) for part in cut.parts] == [[1, 3], [1, 3]]


def test_what_is_not_timed_stays_the_same_object():
    whole = Whole((Part(Timed(counted(4))),), torch.zeros(3))
    assert windowed(whole, [0]).still is whole.still


@pytest.mark.parametrize("value", [None, "name", 3, (1, "a")])
def test_values_without_time_are_returned_as_they_are(value):
    assert windowed(value, [0]) == value
