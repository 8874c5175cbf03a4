"""Given latent frames: where they land, and that they stay."""

from __future__ import annotations

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.clean_frames import CleanFramesInput, GivenLatent
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.sampling.solver import Step
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

STEP = Step(0, 2, 0, 2, 1.0, 0.5, 1000.0, 500.0, 2, 2)

FRAMES, ROWS, COLUMNS = 4, 4, 6
SETUP = RunSetup(
    WanConfig(256, 512, 2, 2, 16, 16), VideoGeometry(48, 32, 4 * FRAMES - 3), latent_space_for(16)
)


def latent(frames: int = 1, channels: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, channels, frames, ROWS, COLUMNS, generator=generator)


def at(index: int, frames: int = 1, **more) -> CleanFramesInput:
    return CleanFramesInput(given=(GivenLatent(latent(frames, **more), index),))


def places(value: CleanFramesInput, **sizes) -> list[int]:
    setup = RunSetup(SETUP.config, SETUP.geometry, SETUP.space, **sizes)
    return [each.index for each in value.prepared(setup).given]


@pytest.mark.parametrize(
    ("index", "frames", "expected"),
    [(0, 1, [0]), (2, 1, [2]), (-1, 1, [3]), (-2, 2, [2, 3]), (1, 2, [1, 2])],
)
def test_an_index_counts_from_the_start_or_from_the_end(index, frames, expected, caplog):
    assert places(at(index, frames)) == expected
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("index", "frames", "expected"), [(9, 1, [3]), (-9, 1, [0]), (3, 2, [2, 3]), (0, 6, [0, 1, 2, 3])]
)
def test_what_lies_outside_is_moved_or_cut_and_said(index, frames, expected, caplog):
    assert places(at(index, frames)) == expected
    assert "extra_latents" in caplog.text


def test_leading_frames_move_the_places():
    assert places(at(0), leading_frames=2) == [2]


def test_an_end_image_behind_the_video_does_not_move_the_last_frame():
    assert places(at(-1), trailing_frames=1) == [3]


def test_of_two_latents_for_one_frame_the_later_counts_and_it_is_said(caplog):
    both = at(0, 2).with_latent(latent(seed=5), 1).prepared(SETUP)
    assert [each.index for each in both.given] == [0, 1]
    assert torch.equal(both.given[1].latent, SETUP.space.normalise(latent(seed=5)))
    assert "latent frames [1] are given twice" in caplog.text


def test_chained_latents_keep_their_frames():
    assert places(at(0).with_latent(latent(), -1)) == [0, 3]


def test_given_frames_are_at_timestep_0():
    assert at(2, 2).prepared(SETUP).frame_timesteps(640.0) == {2: 0.0, 3: 0.0}


def test_the_edit_puts_the_normalised_frames_in():
    prepared = at(1, 2).prepared(SETUP)
    (edit,) = prepared.edits()
    shown = edit.model_input(torch.zeros(1, 16, FRAMES, ROWS, COLUMNS), STEP)
    assert torch.equal(shown[:, :, 1:3], SETUP.space.normalise(latent(2)))
    assert not shown[:, :, [0, 3]].any()


def test_a_window_keeps_the_given_frames_in_it_at_their_places():
    prepared = at(0).with_latent(latent(seed=5), -1).prepared(SETUP)
    window = prepared.window([1, 2, 3])
    assert [each.index for each in window.given] == [2]
    assert window.given[0].latent is prepared.given[1].latent


def test_a_window_without_given_frames_has_no_clean_frame():
    window = at(0).prepared(SETUP).window([1, 2])
    assert window.frame_timesteps(640.0) == {}
    assert window.edits() == ()


def test_a_latent_of_the_other_vae_is_refused_by_name():
    with pytest.raises(InputError, match=r"extra_latents: .*48 channels.*Wan 2.2 VAE"):
        at(0, channels=48).check(SETUP)


def test_another_picture_size_is_resized_and_said(caplog):
    larger = torch.zeros(1, 16, 1, 2 * ROWS, 2 * COLUMNS)
    prepared = CleanFramesInput(given=(GivenLatent(larger, 0),)).prepared(SETUP)
    assert prepared.given[0].latent.shape == (1, 16, 1, ROWS, COLUMNS)
    assert "resized" in caplog.text
