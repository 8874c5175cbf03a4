"""The node of Fun Camera."""

import importlib

import numpy as np
import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.families.fun_camera.cameras import EncodedCamera, camera_of_poses
from comfyui_wanvideo.wanvideo.families.fun_camera.inputs import CAMERA

from .test_cameras import entries

SETTINGS = {"width": 80, "height": 48, "strength": 0.8, "start_percent": 0.1, "end_percent": 0.9}


@pytest.fixture
def node(comfyui_path):
    module = importlib.import_module("comfyui_wanvideo.wanvideo.families.fun_camera.nodes")
    return module.WanVideoFunCameraEmbeds


def test_embeds_are_as_long_as_the_path(node):
    embeds = node.execute(poses=entries(), **SETTINGS)[0]
    assert (embeds.geometry.width, embeds.geometry.height, embeds.geometry.frames) == (80, 48, 9)


def test_the_input_has_poses_strength_and_steps(node):
    value = node.execute(poses=entries(), **SETTINGS)[0].inputs[CAMERA]
    assert torch.equal(value.camera.poses, camera_of_poses(entries()).poses)
    assert value.strength == 0.8
    assert value.steps == StepRange(0.1, 0.9)


@pytest.mark.parametrize("form", ["numpy", "tensor", "list of numpy", "list of tuples"])
def test_poses_may_be_arrays_or_lists(node, form):
    rows = np.array(entries())
    poses = {
        "numpy": rows,
        "tensor": torch.from_numpy(rows),
        "list of numpy": list(rows),
        "list of tuples": [tuple(row) for row in rows.tolist()],
    }[form]
    value = node.execute(poses=poses, **SETTINGS)[0].inputs[CAMERA]
    torch.testing.assert_close(value.camera.poses, camera_of_poses(entries()).poses)


def test_comfyui_s_camera_embedding_is_taken(node):
    rays = torch.rand(1, 24, 3, 48, 80)
    embeds = node.execute(poses=rays, **SETTINGS)[0]
    assert embeds.geometry.frames == 9
    assert isinstance(embeds.inputs[CAMERA].camera, EncodedCamera)
    assert torch.equal(embeds.inputs[CAMERA].camera.channels, rays[0])


def test_any_size_and_number_of_poses_is_rounded_and_said(node, caplog):
    embeds = node.execute(poses=entries(7), **{**SETTINGS, "width": 88})[0]
    assert (embeds.geometry.width, embeds.geometry.frames) == (80, 5)
    assert "width 88 is not a multiple of 16" in caplog.text
    assert embeds.inputs[CAMERA].camera.frames == 7


@pytest.mark.parametrize("poses", ["x", None, 3.0])
def test_what_are_no_poses_is_refused_by_its_type(node, poses):
    with pytest.raises(Exception, match=r"^WanVideo FunCamera Embeds: poses: expected a list"):
        node.execute(poses=poses, **SETTINGS)


@pytest.mark.parametrize("poses", [[], [3.0], [[1.0, 2.0]], torch.zeros(3, 4, 4)])
def test_a_list_of_something_else_is_refused(node, poses):
    with pytest.raises(Exception, match=r"^WanVideo FunCamera Embeds: poses: "):
        node.execute(poses=poses, **SETTINGS)


@pytest.mark.parametrize("shape", [(2, 24, 3, 48, 80), (1, 6, 3, 48, 80), (1, 24, 0, 48, 80)])
def test_another_camera_embedding_is_refused_with_its_shape(node, shape):
    with pytest.raises(Exception, match=r"poses: expected a camera embedding \[1, 24, frames"):
        node.execute(poses=torch.zeros(shape), **SETTINGS)
