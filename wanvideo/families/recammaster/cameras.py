"""Camera paths, and the form in which the model reads them.

A pose is a camera-to-world matrix ``[4, 4]`` in the units of the training scenes (centimetres): the columns
are the camera's forward, right and up axis and its position. One pose stands for one latent frame, that
is for every fourth frame of the video.

Source: the ten example paths of https://github.com/KwaiVGI/ReCamMaster
(``example_test_data/cameras/camera_extrinsics.json``). The formulas below reproduce all 81 frames of it to
the six digits it is written with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import atan2, cos, degrees, hypot, radians, sin

import torch
from torch import Tensor

from ...conditioning.geometry import TEMPORAL_STRIDE
from ...errors import InputError

PRESET_FRAMES = 81  # length of the example paths, and of the videos the model was trained on
START = (3390.0, 1380.0, 240.0)  # where every preset begins, looking along x
SUBJECT_DISTANCE = 400.0  # of the point that translations and arcs keep in sight
ORBIT_RADIUS = 1.0
MOVE_FRAMES = 80.5  # a full move takes half a frame longer than the 80 steps of the video
PAN_DEGREES = 20.0
TILT_DEGREES = 10.0
ZOOM_DISTANCE = 200.0
TRANSLATION_DISTANCE = 100.0
ARC_DEGREES = 30.0
CENTIMETRES = 100.0  # per unit of the model
MODEL_AXES = (1, 2, 0)  # right, up, forward: the columns in the order the model expects


@dataclass(frozen=True)
class View:
    """Where a camera is and where it looks.

    Args:
        position: x (forward at the start), y (right), z (up) in centimetres from ``START``.
        yaw: degrees about z, positive turns forward towards y.
        pitch: degrees, positive looks up.
    """

    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    pitch: float = 0.0

    def pose(self) -> Tensor:
        """Camera-to-world matrix ``[4, 4]`` in float64."""
        yaw, pitch = radians(self.yaw), radians(self.pitch)
        x, y, z = (start + moved for start, moved in zip(START, self.position, strict=True))
        return torch.tensor(
            [
                [cos(yaw) * cos(pitch), -sin(yaw), -cos(yaw) * sin(pitch), x],
                [sin(yaw) * cos(pitch), cos(yaw), -sin(yaw) * sin(pitch), y],
                [sin(pitch), 0.0, cos(pitch), z],
                [0.0, 0.0, 0.0, 1.0],
            ],
            dtype=torch.float64,
        )

    @classmethod
    def towards_subject(cls, x: float, y: float, z: float) -> View:
        """From a position, the point straight ahead of the start in view."""
        ahead = SUBJECT_DISTANCE - x
        return cls(
            (x, y, z),
            yaw=degrees(atan2(-y, ahead)),
            pitch=degrees(atan2(-z, hypot(ahead, y))),
        )


def _arc(part: float, side: int) -> View:
    """Along the chord of an arc about the subject."""
    angle = radians(ARC_DEGREES)
    forward, sideways = SUBJECT_DISTANCE * (1 - cos(angle)), SUBJECT_DISTANCE * sin(angle)
    return View.towards_subject(part * forward, side * part * sideways, 0.0)


# The view after a part (0 to 1) of each move.
PRESETS: dict[str, Callable[[float], View]] = {
    "pan_right": lambda part: View(yaw=PAN_DEGREES * part),
    "pan_left": lambda part: View(yaw=-PAN_DEGREES * part),
    "tilt_up": lambda part: View(pitch=TILT_DEGREES * part),
    "tilt_down": lambda part: View(pitch=-TILT_DEGREES * part),
    "zoom_in": lambda part: View((ZOOM_DISTANCE * part, 0.0, 0.0)),
    "zoom_out": lambda part: View((-ZOOM_DISTANCE * part, 0.0, 0.0)),
    "translate_up": lambda part: View.towards_subject(0.0, 0.0, TRANSLATION_DISTANCE * part),
    "translate_down": lambda part: View.towards_subject(0.0, 0.0, -TRANSLATION_DISTANCE * part),
    "arc_left": lambda part: _arc(part, -1),
    "arc_right": lambda part: _arc(part, 1),
}


def preset_poses(move: str, latent_frames: int) -> Tensor:
    """One of the paths the model was published with, from its beginning.

    Args:
        move: a key of ``PRESETS``.
        latent_frames: number of poses.

    Returns:
        ``[latent_frames, 4, 4]`` in float64.

    Raises:
        InputError: an unknown move, or more frames than the paths have.
    """
    if move not in PRESETS:
        raise InputError("camera_type", f"{move!r} is not one of {', '.join(PRESETS)}")
    longest = (PRESET_FRAMES - 1) // TEMPORAL_STRIDE + 1
    if latent_frames > longest:
        raise InputError(
            "latents",
            f"{latent_frames} latent frames; the preset moves have {longest} ({PRESET_FRAMES} frames of "
            "video). Shorten the video, or use the orbit camera",
        )
    view = PRESETS[move]
    return torch.stack([view(TEMPORAL_STRIDE * i / MOVE_FRAMES).pose() for i in range(latent_frames)])


def orbit_poses(frames: int, turn: float) -> Tensor:
    """A circle about the start position, the camera facing its centre.

    Args:
        frames: of the video; the last one is turned by ``turn``.
        turn: degrees, positive turns forward towards y.

    Returns:
        ``[(frames + 3) // 4, 4, 4]`` in float64, the pose of every fourth frame.
    """
    poses: list[Tensor] = []
    for frame in range(0, frames, TEMPORAL_STRIDE):
        turned = turn * frame / max(frames - 1, 1)
        back = (-ORBIT_RADIUS * cos(radians(turned)), -ORBIT_RADIUS * sin(radians(turned)), 0.0)
        poses.append(View(back, yaw=turned).pose())
    return torch.stack(poses)


def relative_poses(poses: Tensor) -> Tensor:
    """Poses as the camera encoder reads them.

    Args:
        poses: camera-to-world ``[T, 4, 4]``.

    Returns:
        float32 ``[T, 12]``: the rows of ``[3, 4]`` matrices relative to the first pose, in metres, columns
        right, down, forward, position.
    """
    rotation, position = poses[:, :3, :3].double(), poses[:, :3, 3:].double() / CENTIMETRES
    right, up, forward = (rotation[:, :, axis] for axis in MODEL_AXES)
    camera = torch.stack([right, -up, forward], dim=-1)
    from_first = torch.linalg.inv(camera[:1])
    relative = torch.cat([from_first @ camera, from_first @ (position - position[:1])], dim=-1)
    return relative.flatten(1).float()
