"""What ReCamMaster is conditioned on."""

from __future__ import annotations

from dataclasses import dataclass

from ...conditioning.conditioning import FamilyInput
from ...conditioning.timed import Timed
from ...errors import InputError


@dataclass(frozen=True)
class ReCamMasterInput(FamilyInput):
    """A video and the camera it is to be seen by.

    Args:
        poses: ``[T, 12]``, see ``cameras.relative_poses``.
        source: latent of the video, un-normalised ``[1, C, T, H, W]``.

    Raises:
        InputError: another number of poses than of latent frames.
    """

    poses: Timed
    source: Timed

    def __post_init__(self) -> None:
        poses, frames = self.poses.values.shape[0], self.source.values.shape[2]
        if poses != frames:
            raise InputError(
                "camera_poses",
                f"{poses} poses for {frames} latent frames; make both from a video of "
                f"{(frames - 1) * 4 + 1} frames",
            )
