"""The input of ReCamMaster."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.conditioning import FamilyInput
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.recammaster.inputs import ReCamMasterInput


def make(poses=5, frames=5):
    return ReCamMasterInput(Timed(torch.rand(poses, 12), axis=0), Timed(torch.rand(1, 16, frames, 4, 6)))


def test_it_is_a_family_input():
    assert isinstance(make(), FamilyInput)


def test_it_takes_part_in_all_steps():
    assert make().steps.steps(7) == tuple(range(7))


def test_a_window_cuts_poses_and_video_alike():
    whole = make()
    part = whole.window(range(1, 4))
    assert torch.equal(part.poses.values, whole.poses.values[1:4])
    assert torch.equal(part.source.values, whole.source.values[:, :, 1:4])


def test_another_number_of_poses_than_frames_is_refused_with_both():
    with pytest.raises(InputError, match=r"^camera_poses: 21 poses for 5 latent frames; .* 17 frames"):
        make(poses=21)
