"""Clips of another length than the video."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.length_fit import (
    LENGTH_FITS,
    fit_remark,
    fitted_latent,
    frame_indices,
)
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=50)
@given(given_frames=st.integers(1, 12), wanted=st.integers(1, 30), fit=st.sampled_from(LENGTH_FITS))
def test_there_is_an_entry_of_the_clip_for_every_frame(given_frames, wanted, fit):
    indices = frame_indices(given_frames, wanted, fit=fit, first_repeated=1)
    assert len(indices) == wanted
    assert set(indices) <= set(range(given_frames))


@pytest.mark.parametrize("fit", LENGTH_FITS)
def test_a_longer_clip_is_cut_at_its_end(fit):
    assert frame_indices(9, 5, fit=fit) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fit", ["hold", "trim"])
def test_the_last_entry_is_held(fit):
    assert frame_indices(3, 6, fit=fit) == [0, 1, 2, 2, 2, 2]


def test_a_loop_begins_again():
    assert frame_indices(3, 8, fit="loop") == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_loop_of_latents_leaves_out_the_one_that_stands_for_a_single_picture():
    latent = torch.arange(3.0).view(1, 1, 3, 1, 1)
    assert fitted_latent(latent, 8, fit="loop").flatten().tolist() == [0, 1, 2, 1, 2, 1, 2, 1]


def test_a_loop_of_one_latent_holds_it():
    latent = torch.ones(1, 1, 1, 1, 1)
    assert fitted_latent(latent, 3, fit="loop").flatten().tolist() == [1, 1, 1]


def test_a_fitting_latent_is_left_as_it_is():
    latent = torch.ones(1, 1, 3, 1, 1)
    assert fitted_latent(latent, 3) is latent


@pytest.mark.parametrize(
    ("lengths", "fit", "expected"),
    [
        ((81, 81), "hold", ""),
        ((97, 81), "hold", "the clip has 97 frames, the video 81: the last 16 are not used"),
        ((41, 81), "hold", "the clip has 41 frames, the video 81: it holds its last frame"),
        ((41, 81), "loop", "the clip has 41 frames, the video 81: it is repeated"),
    ],
)
def test_what_is_said(lengths, fit, expected):
    assert fit_remark("the clip", *lengths, fit=fit) == expected
