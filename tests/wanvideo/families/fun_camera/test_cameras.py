"""Rays of a camera, against ComfyUI's."""

import math

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.fun_camera.cameras import (
    EncodedCamera,
    camera_of_poses,
    pixel_intrinsics,
    pluecker_rays,
)

CPU = torch.device("cpu")
FRAMES = 9
INTRINSICS = (0.5, 0.6, 0.5, 0.45)


def pose(turn, position):
    """World to camera ``[3, 4]`` of a camera that has turned about y and z and moved."""
    cos, sin = math.cos(turn), math.sin(turn)
    about_y = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=torch.float64)
    about_z = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
    shift = torch.tensor(position, dtype=torch.float64)[:, None]
    return torch.cat([about_y @ about_z, shift], dim=1)


def entries(frames=FRAMES, intrinsics=INTRINSICS):
    """Poses as the nodes for AnimateDiff's camera control make them."""
    poses = [pose(0.3 + 0.05 * i, (0.1 * i, 0.2 - 0.03 * i, 0.07 * i * i)) for i in range(frames)]
    return [[float(i), *intrinsics, 0.0, 0.0, *matrix.flatten().tolist()] for i, matrix in enumerate(poses)]


def comfy_channels(comfy_extras, rows, size):
    """ComfyUI's rays for the same cameras, packed as its node packs them; it takes camera-to-world."""
    height, width = size
    theirs = []
    for row in rows:
        to_camera = torch.eye(4, dtype=torch.float64)
        to_camera[:3] = torch.tensor(row[7:], dtype=torch.float64).view(3, 4)
        theirs.append([*row[:7], *torch.linalg.inv(to_camera).flatten().tolist()])
    rays = comfy_extras("nodes_camera_trajectory").process_pose_params(theirs, width=width, height=height)
    video = rays.permute(3, 0, 1, 2)  # [6, F, H, W]
    first = video[:, :1].repeat(1, 3, 1, 1)
    return torch.cat([first, video], dim=1).unflatten(1, (-1, 4)).transpose(1, 2).flatten(0, 1)


def channels(camera, size):
    frames = (camera.frames - 1) // 4 + 1
    return torch.stack([camera.rays(frame, size, CPU) for frame in range(frames)], dim=1)


@pytest.mark.parametrize("size", [(48, 80), (80, 48), (32, 32), (16, 64), (45, 80)])
def test_rays_equal_comfyui_s_at_any_aspect(comfy_extras, size):
    expected = comfy_channels(comfy_extras, entries(), size)
    torch.testing.assert_close(channels(camera_of_poses(entries()), size), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("preset", ["Static", "Pan Up", "Zoom In", "ClockWise (CW)"])
def test_what_comfyui_s_node_makes_is_what_its_poses_make(comfy_extras, preset):
    """Its node has poses from camera to world, ours are read from world to camera."""
    core = comfy_extras("nodes_camera_trajectory")
    made = core.WanCameraEmbedding.execute(preset, 80, 48, FRAMES, 1.5, *INTRINSICS).result[0]
    kind = core.CAMERA_DICT[preset]
    moves = core.get_camera_motion(*(core.np.array(kind[name]) for name in ("angle", "T")), 1.5, FRAMES)
    poses = []
    for matrix in torch.tensor(moves, dtype=torch.float64):
        to_world = torch.cat([matrix, torch.tensor([[0.0, 0, 0, 1]], dtype=torch.float64)])
        poses.append([0.0, *INTRINSICS, 0.0, 0.0, *torch.linalg.inv(to_world)[:3].flatten().tolist()])
    from_node, from_poses = EncodedCamera(made[0]), camera_of_poses(poses)
    assert from_node.frames == FRAMES
    torch.testing.assert_close(
        channels(from_poses, (48, 80)), channels(from_node, (48, 80)), atol=2e-6, rtol=1e-5
    )


def test_the_first_latent_frame_has_the_first_picture_four_times():
    rays = camera_of_poses(entries()).rays(0, (16, 16), CPU).unflatten(0, (6, 4))
    assert torch.equal(rays, rays[:, :1].expand_as(rays))


def test_the_first_camera_sees_along_z_from_the_origin():
    rays = (
        camera_of_poses(entries(intrinsics=(0.5, 0.5, 0.5, 0.5))).rays(0, (17, 17), CPU).unflatten(0, (6, 4))
    )
    middle = rays[:, 0, 8, 8]
    torch.testing.assert_close(middle, torch.tensor([0.0, 0, 0, 0, 0, 1]), atol=1e-6, rtol=0)


def test_directions_have_length_1_and_moments_stand_upright_on_them():
    rays = channels(camera_of_poses(entries()), (16, 24)).unflatten(0, (6, 4))
    moment, direction = rays[:3], rays[3:]
    torch.testing.assert_close(direction.norm(dim=0), torch.ones(rays.shape[1:]))
    torch.testing.assert_close((moment * direction).sum(0), torch.zeros(rays.shape[1:]), atol=1e-5, rtol=0)


def test_the_moment_is_that_of_any_point_of_the_ray():
    intrinsics = torch.tensor([[8.0, 8.0, 8.0, 8.0]])
    matrix = torch.eye(4)
    matrix[:3, 3] = torch.tensor([0.5, -0.25, 1.0])
    moment, direction = pluecker_rays(intrinsics, matrix[None], (16, 16))[0].chunk(2)
    point = matrix[:3, 3, None, None] + 3.7 * direction
    torch.testing.assert_close(torch.linalg.cross(point, direction, dim=0), moment, atol=1e-5, rtol=1e-5)


def test_poses_depend_on_where_the_first_camera_is_only():
    """The same path seen from another world."""
    world = torch.eye(4, dtype=torch.float64)
    world[:3] = pose(1.1, (3.0, -2.0, 0.5))
    moved = []
    for entry in entries():
        to_camera = torch.eye(4, dtype=torch.float64)
        to_camera[:3] = torch.tensor(entry[7:], dtype=torch.float64).view(3, 4)
        moved.append([*entry[:7], *(to_camera @ world)[:3].flatten().tolist()])
    torch.testing.assert_close(camera_of_poses(moved).poses, camera_of_poses(entries()).poses)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((720, 1280), (640, 360)),
        ((720, 720), (640, 360)),
        ((720, 2560), (1280, 720)),
        ((360, 640), (320, 180)),
    ],
)
def test_the_picture_is_scaled_to_cover_the_video(size, expected):
    """Height and width; focal lengths of half a 1280x720 picture in pixels of the video."""
    found = pixel_intrinsics(torch.tensor([[0.5, 0.5, 0.5, 0.5]]), size)[0]
    torch.testing.assert_close(found, torch.tensor([*expected, size[1] / 2, size[0] / 2]))


@pytest.mark.parametrize("make", ["poses", "encoded"])
def test_a_longer_path_is_cut(make):
    camera = camera_of_poses(entries())
    whole = EncodedCamera(channels(camera, (16, 16))) if make == "encoded" else camera
    found = whole.fitted(5)
    assert found.frames == 5
    assert torch.equal(channels(found, (16, 16)), channels(whole, (16, 16))[:, :2])


@pytest.mark.parametrize("make", ["poses", "encoded"])
def test_a_shorter_path_ends_in_a_camera_that_stands_still(make):
    camera = camera_of_poses(entries())
    whole = EncodedCamera(channels(camera, (16, 16))) if make == "encoded" else camera
    found = channels(whole.fitted(17), (16, 16))
    assert found.shape[1] == 5
    assert torch.equal(found[:, :3], channels(whole, (16, 16)))
    assert torch.equal(found[:, 4], found[:, 3])


def test_a_fitting_path_is_left_as_it_is():
    camera = camera_of_poses(entries())
    assert camera.fitted(FRAMES) is camera


def test_encoded_rays_of_another_size_are_close_to_those_of_that_size():
    camera = camera_of_poses(entries())
    found = channels(EncodedCamera(channels(camera, (64, 96))), (32, 48))
    torch.testing.assert_close(found, channels(camera, (32, 48)), atol=2e-3, rtol=0)
    torch.testing.assert_close(found[12:].unflatten(0, (3, 4)).norm(dim=0), torch.ones(4, 3, 32, 48))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [], "there are no poses"),
        (lambda rows: [rows[0], rows[1][:-1]], "entry 1 is no camera"),
        (lambda rows: [rows[0], ["x"] * 19], "entry 1 is no camera"),
        (lambda rows: [rows[0], [math.nan] * 19], "entry 1 is no camera"),
        (lambda rows: [[*rows[0][:1], 0.0, *rows[0][2:]]], "entry 0 has a focal length that is not above 0"),
        (lambda rows: [[*rows[0][:7], *[0.0] * 12]], "entry 0 has a matrix that cannot be inverted"),
    ],
)
def test_what_are_no_poses_is_refused_with_its_number(change, message):
    with pytest.raises(InputError, match=f"^poses: {message}"):
        camera_of_poses(change(entries()))
