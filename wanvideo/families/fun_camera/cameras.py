"""Cameras and the rays through their pixels, as Fun Camera reads them.

A ray through a pixel is six numbers (Pluecker coordinates, arXiv:2106.02634): the moment ``o x d`` and the
direction ``d`` of length 1, where ``o`` is the position of the camera; both in the axes of the first camera.
The model reads one value of each for every pixel of the four frames of a latent frame (the first frame
stands there four times): 24 channels.

Intrinsics are those of a 1280x720 picture in parts of its width and height; a video of another shape sees the
largest part of that picture it can cut out. Source: CameraCtrl (arXiv:2404.02101, ``inference.py``), which
VideoX-Fun follows (``videox_fun/data/utils.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import Self

from ...conditioning.geometry import TEMPORAL_STRIDE
from ...conditioning.length_fit import frame_indices
from ...errors import InputError

ASPECT = 1280 / 720  # of the picture the intrinsics belong to
RAY_CHANNELS = 6
CHANNELS = RAY_CHANNELS * TEMPORAL_STRIDE
ENTRY_LENGTH = 19  # number, fx, fy, cx, cy, 0, 0, and 12 of a 3x4 matrix
_INTRINSICS = slice(1, 5)
_MATRIX = slice(7, ENTRY_LENGTH)
_SINGULAR = 1e-8


class Camera(Protocol):
    """A camera that moves."""

    @property
    def frames(self) -> int:
        """Pixel frames it is given for."""
        ...

    def fitted(self, frames: int) -> Self:
        """Itself for so many pixel frames (4n + 1): cut, or standing still at its end."""
        ...

    def rays(self, latent_frame: int, size: tuple[int, int], device: torch.device) -> Tensor:
        """Rays of one latent frame: float32 ``[24, height, width]``, frames fastest among the channels."""
        ...


@dataclass(frozen=True)
class PosedCamera:
    """A camera with a pose for every pixel frame.

    Args:
        intrinsics: ``[F, 4]`` fx, fy, cx, cy in parts of the picture's width (x) and height (y).
        poses: camera to world ``[F, 4, 4]``, relative to the first one.
    """

    intrinsics: Tensor
    poses: Tensor

    @property
    def frames(self) -> int:
        """Number of poses."""
        return self.poses.shape[0]

    def fitted(self, frames: int) -> Self:
        """See :class:`Camera`."""
        if frames == self.frames:
            return self
        index = torch.tensor(frame_indices(self.frames, frames))
        return replace(self, intrinsics=self.intrinsics[index], poses=self.poses[index])

    def rays(self, latent_frame: int, size: tuple[int, int], device: torch.device) -> Tensor:
        """See :class:`Camera`."""
        last = latent_frame * TEMPORAL_STRIDE
        index = [max(0, frame) for frame in range(last - TEMPORAL_STRIDE + 1, last + 1)]
        intrinsics = pixel_intrinsics(self.intrinsics[index], size).to(device, torch.float32)
        poses = self.poses[index].to(device, torch.float32)
        return pluecker_rays(intrinsics, poses, size).transpose(0, 1).flatten(0, 1)


@dataclass(frozen=True)
class EncodedCamera:
    """Rays that another node has computed already.

    Args:
        channels: ``[24, T, H, W]``.
    """

    channels: Tensor

    @property
    def frames(self) -> int:
        """Pixel frames of the latent frames it has."""
        return (self.channels.shape[1] - 1) * TEMPORAL_STRIDE + 1

    def fitted(self, frames: int) -> Self:
        """See :class:`Camera`."""
        wanted = (frames - 1) // TEMPORAL_STRIDE + 1
        if wanted == self.channels.shape[1]:
            return self
        index = torch.tensor(frame_indices(self.channels.shape[1], wanted), device=self.channels.device)
        return replace(self, channels=self.channels.index_select(1, index))

    def rays(self, latent_frame: int, size: tuple[int, int], device: torch.device) -> Tensor:
        """See :class:`Camera`; rays of another size are interpolated, with directions of length 1."""
        rays = self.channels[:, latent_frame].to(device, torch.float32)
        if rays.shape[1:] == size:
            return rays
        rays = functional.interpolate(rays[None], size=size, mode="bilinear", align_corners=False)[0]
        moment, direction = rays.unflatten(0, (RAY_CHANNELS, TEMPORAL_STRIDE)).chunk(2)
        length = direction.norm(dim=0, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return torch.cat([moment / length, direction / length]).flatten(0, 1)


def camera_of_poses(entries: Sequence[Sequence[float]]) -> PosedCamera:
    """A camera of a CAMERACTRL_POSES list.

    Args:
        entries: one per pixel frame: a number, fx, fy, cx, cy (parts of width and height), two zeros, and the
            rows of the world-to-camera matrix ``[3, 4]``.

    Raises:
        InputError: no entries, or one that is no camera; it says which.
    """
    if not len(entries):
        raise InputError("poses", "there are no poses; connect a node that makes one per frame")
    rows = torch.tensor(
        [_numbers(number, entry) for number, entry in enumerate(entries)], dtype=torch.float64
    )
    intrinsics, to_camera = rows[:, _INTRINSICS], rows[:, _MATRIX].unflatten(1, (3, 4))
    _check(~(intrinsics[:, :2] > 0).all(1), "has a focal length that is not above 0")
    _check(torch.linalg.det(to_camera[:, :, :3]).abs() < _SINGULAR, "has a matrix that cannot be inverted")
    last_row = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64).expand(len(rows), 1, 4)
    to_camera = torch.cat([to_camera, last_row], dim=1)
    return PosedCamera(intrinsics, to_camera[:1] @ torch.linalg.inv(to_camera))


def pixel_intrinsics(intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """Focal lengths and centre in pixels of a video.

    Args:
        intrinsics: ``[F, 4]`` in parts of a 16:9 picture.
        size: height and width of the video; the picture is scaled to cover it, about its centre.
    """
    height, width = size
    covered = (max(width, height * ASPECT), max(height, width / ASPECT))
    return intrinsics * torch.tensor([*covered, width, height], dtype=intrinsics.dtype)


def pluecker_rays(intrinsics: Tensor, poses: Tensor, size: tuple[int, int]) -> Tensor:
    """Moment and direction of the ray through the middle of every pixel.

    Args:
        intrinsics: ``[F, 4]`` fx, fy, cx, cy in pixels.
        poses: camera to world ``[F, 4, 4]``; the camera looks along z, x is right, y down.
        size: height and width.

    Returns:
        ``[F, 6, height, width]`` in the dtype and on the device of ``poses``.
    """
    height, width = size
    rows = torch.arange(height, dtype=poses.dtype, device=poses.device) + 0.5
    columns = torch.arange(width, dtype=poses.dtype, device=poses.device) + 0.5
    fx, fy, cx, cy = (column[:, None, None] for column in intrinsics.unbind(1))
    x = ((columns[None, None, :] - cx) / fx).expand(-1, height, -1)
    y = ((rows[None, :, None] - cy) / fy).expand(-1, -1, width)
    seen = functional.normalize(torch.stack([x, y, torch.ones_like(x)], dim=1), dim=1)
    direction = torch.einsum("frc,fchw->frhw", poses[:, :3, :3], seen)
    origin = poses[:, :3, 3, None, None].expand_as(direction)
    return torch.cat([torch.linalg.cross(origin, direction, dim=1), direction], dim=1)


def _numbers(number: int, entry: Sequence[float]) -> list[float]:
    try:
        values = [float(value) for value in entry]
    except (TypeError, ValueError):
        values = []
    if len(values) != ENTRY_LENGTH or not torch.tensor(values).isfinite().all():
        raise InputError(
            "poses",
            f"entry {number} is no camera: expected {ENTRY_LENGTH} numbers (number, fx, fy, cx, cy, 0, 0 and "
            "the 12 of a world-to-camera matrix), as nodes for camera poses make them",
        )
    return values


def _check(wrong: Tensor, problem: str) -> None:
    if wrong.any():
        raise InputError("poses", f"entry {int(wrong.nonzero()[0])} {problem}; make the poses anew")
