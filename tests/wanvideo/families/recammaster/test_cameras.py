"""Camera paths of ReCamMaster."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.recammaster.cameras import (
    PRESETS,
    View,
    orbit_poses,
    preset_poses,
    relative_poses,
)

# Frame 80 of the paths that KwaiVGI published (camera_extrinsics.json): forward axis, position.
PUBLISHED = {
    "pan_right": ((0.940432, 0.339982, 0), (3390, 1380, 240)),
    "pan_left": ((0.940432, -0.339982, 0), (3390, 1380, 240)),
    "tilt_up": ((0.984995, 0, 0.17258), (3390, 1380, 240)),
    "tilt_down": ((0.984995, 0, -0.17258), (3390, 1380, 240)),
    "zoom_in": ((1, 0, 0), (3588.76, 1380, 240)),
    "zoom_out": ((1, 0, 0), (3191.24, 1380, 240)),
    "translate_up": ((0.970496, 0, -0.241117), (3390, 1380, 339.379)),
    "translate_down": ((0.970496, 0, 0.241117), (3390, 1380, 140.621)),
    "arc_left": ((0.867575, 0.497306, 0), (3443.26, 1181.24, 240)),
    "arc_right": ((0.867575, -0.497306, 0), (3443.26, 1578.76, 240)),
}
EYE = torch.eye(3, dtype=torch.float64)


@pytest.mark.parametrize("move", PRESETS)
def test_preset_ends_at_the_published_pose(move):
    forward, position = (torch.tensor(row, dtype=torch.float64) for row in PUBLISHED[move])
    pose = preset_poses(move, 21)[20]
    torch.testing.assert_close(pose[:3, 0], forward, atol=6e-7, rtol=0)
    torch.testing.assert_close(pose[:3, 3], position, atol=6e-3, rtol=0)


@pytest.mark.parametrize("move", PRESETS)
def test_preset_begins_at_the_origin_looking_ahead(move):
    expected = torch.eye(4, dtype=torch.float64)
    expected[:3, 3] = torch.tensor([3390.0, 1380.0, 240.0])
    assert torch.equal(preset_poses(move, 1)[0], expected)


def test_preset_is_linear_in_time():
    """Frame 8 of the published zoom is at 3409.88: a fifth of frame 40's way."""
    x = preset_poses("zoom_in", 21)[:, 0, 3]
    assert x[2] == pytest.approx(3409.88, abs=6e-3)
    torch.testing.assert_close(x.diff(), x.diff()[:1].expand(20))


def test_a_shorter_video_takes_the_beginning_of_the_move():
    assert torch.equal(preset_poses("arc_left", 9), preset_poses("arc_left", 21)[:9])


@pytest.mark.parametrize("move", PRESETS)
def test_axes_stay_orthonormal_and_are_not_mirrored(move):
    rotation = preset_poses(move, 21)[:, :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, EYE.expand(21, 3, 3), atol=1e-12, rtol=0)
    assert (torch.linalg.det(rotation) > 0.99).all()


@pytest.mark.parametrize("move", [name for name in PRESETS if name.startswith(("arc", "translate"))])
def test_moves_about_the_subject_keep_it_in_the_middle(move):
    poses = preset_poses(move, 21)
    subject = torch.tensor([3790.0, 1380.0, 240.0], dtype=torch.float64)
    towards = torch.nn.functional.normalize(subject - poses[:, :3, 3], dim=1)
    torch.testing.assert_close(poses[:, :3, 0], towards, atol=1e-12, rtol=0)


def test_a_longer_video_than_the_presets_is_refused_with_both_lengths():
    with pytest.raises(InputError, match=r"^latents: 22 latent frames; .* have 21 \(81 frames"):
        preset_poses("pan_left", 22)


def test_an_unknown_move_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"^camera_type: 'roll' is not one of pan_right, "):
        preset_poses("roll", 5)


@pytest.mark.parametrize(("frames", "poses"), [(1, 1), (2, 1), (4, 1), (5, 2), (9, 3), (80, 20), (81, 21)])
def test_an_orbit_has_a_pose_for_every_fourth_frame(frames, poses):
    assert orbit_poses(frames, 90).shape == (poses, 4, 4)


@pytest.mark.parametrize("turn", [-180, -90, 30, 180])
def test_an_orbit_faces_its_centre_from_one_unit_away(turn):
    poses = orbit_poses(81, turn)
    centre = torch.tensor([3390.0, 1380.0, 240.0], dtype=torch.float64)
    torch.testing.assert_close(poses[:, :3, 3] + poses[:, :3, 0], centre.expand(21, 3), atol=1e-9, rtol=0)


@pytest.mark.parametrize("turn", [-180, -45, 90])
def test_an_orbit_ends_after_its_turn(turn):
    rotation = View(yaw=turn).pose()[:3, :3]
    torch.testing.assert_close(orbit_poses(81, turn)[-1][:3, :3], rotation)


def test_a_quarter_orbit_ends_at_the_side():
    torch.testing.assert_close(
        orbit_poses(5, 90)[-1][:3, 3], torch.tensor([3390.0, 1379.0, 240.0], dtype=torch.float64)
    )


def test_one_frame_is_a_still_camera():
    assert torch.equal(orbit_poses(1, 90), orbit_poses(5, 90)[:1])


def test_the_first_relative_pose_is_the_identity():
    for poses in (preset_poses("arc_left", 5), orbit_poses(81, 90)):
        first = relative_poses(poses)[0].view(3, 4)
        torch.testing.assert_close(first, torch.eye(4)[:3], atol=1e-7, rtol=0)


def test_relative_poses_do_not_depend_on_where_the_camera_starts():
    poses = preset_poses("arc_right", 9)
    moved = View((50.0, -20.0, 30.0), yaw=25.0, pitch=-10.0).pose() @ torch.linalg.inv(poses[0]) @ poses
    torch.testing.assert_close(relative_poses(moved), relative_poses(poses), atol=1e-6, rtol=0)


def test_zooming_in_moves_along_the_third_axis_in_metres():
    last = relative_poses(preset_poses("zoom_in", 21))[-1].view(3, 4)
    torch.testing.assert_close(last[:, 3], torch.tensor([0.0, 0.0, 1.98758]), atol=1e-5, rtol=0)


def test_going_up_is_negative_along_the_second_axis():
    last = relative_poses(preset_poses("translate_up", 21))[-1].view(3, 4)
    assert last[1, 3] < -0.9


def test_panning_right_turns_forward_towards_the_first_axis():
    last = relative_poses(preset_poses("pan_right", 21))[-1].view(3, 4)
    torch.testing.assert_close(last[:, 2], torch.tensor([0.339982, 0.0, 0.940432]), atol=1e-6, rtol=0)


def test_relative_poses_are_float32_rows_of_12():
    result = relative_poses(orbit_poses(81, 90).float())
    assert result.shape == (21, 12)
    assert result.dtype == torch.float32
