"""The nodes of ReCamMaster."""

import importlib

import pytest
import torch
from comfyui_wanvideo.wanvideo.families.recammaster.cameras import orbit_poses, preset_poses, relative_poses


@pytest.fixture
def nodes(comfyui_path):
    return importlib.import_module("comfyui_wanvideo.wanvideo.families.recammaster.nodes")


def latents(frames=5, shape=None):
    return {"samples": torch.rand(shape or (1, 16, frames, 4, 6))}


def test_a_preset_gets_the_length_of_the_video(nodes):
    output = nodes.WanVideoReCamMasterDefaultCamera.execute(camera_type="arc_left", latents=latents(9))
    assert torch.equal(output[0], preset_poses("arc_left", 9))


def test_a_latent_without_batch_is_taken(nodes):
    output = nodes.WanVideoReCamMasterDefaultCamera.execute(
        camera_type="pan_left", latents=latents(shape=(16, 3, 4, 6))
    )
    assert len(output[0]) == 3


@pytest.mark.parametrize("shape", [(2, 16, 3, 4, 6), (16, 4, 6)])
def test_what_is_no_single_video_is_refused_with_its_shape(nodes, shape):
    with pytest.raises(
        Exception, match=r"^WanVideo ReCamMaster Default Camera: latents: expected the latent of one"
    ):
        nodes.WanVideoReCamMasterDefaultCamera.execute(camera_type="pan_left", latents=latents(shape=shape))


def test_the_orbit_node_makes_an_orbit(nodes):
    output = nodes.WanVideoReCamMasterGenerateOrbitCamera.execute(num_frames=17, degrees=-30)
    assert torch.equal(output[0], orbit_poses(17, -30))


def test_embeds_hold_size_poses_and_video(nodes):
    poses, video = orbit_poses(17, 90), latents(5)
    embeds, same = nodes.WanVideoReCamMasterCameraEmbed.execute(camera_poses=poses, latents=video)[:2]
    assert (embeds.geometry.width, embeds.geometry.height, embeds.geometry.frames) == (48, 32, 17)
    assert torch.equal(embeds.inputs["recammaster"].poses.values, relative_poses(poses))
    assert embeds.inputs["recammaster"].source.values is video["samples"]
    assert same is poses


@pytest.mark.parametrize("form", ["numpy", "list of numpy", "list of lists"])
def test_poses_of_other_packs_are_taken(nodes, form):
    poses = orbit_poses(17, 90)
    value = {"numpy": poses.numpy(), "list of numpy": list(poses.numpy()), "list of lists": poses.tolist()}[
        form
    ]
    embeds = nodes.WanVideoReCamMasterCameraEmbed.execute(camera_poses=value, latents=latents(5))[0]
    torch.testing.assert_close(embeds.inputs["recammaster"].poses.values, relative_poses(poses))


@pytest.mark.parametrize("value", [torch.zeros(5, 12), [], torch.zeros(0, 4, 4), torch.zeros(4, 4)])
def test_what_are_no_poses_is_refused(nodes, value):
    with pytest.raises(Exception, match=r"camera_poses: expected matrices \[frames, 4, 4\]"):
        nodes.WanVideoReCamMasterCameraEmbed.execute(camera_poses=value, latents=latents(5))


def test_poses_of_another_length_are_refused(nodes):
    with pytest.raises(Exception, match=r"^WanVideo ReCamMaster Camera Embed: camera_poses: 21 poses for 5"):
        nodes.WanVideoReCamMasterCameraEmbed.execute(camera_poses=orbit_poses(81, 9), latents=latents(5))
