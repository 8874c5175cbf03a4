"""What ReCamMaster is conditioned on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ...errors import InputError
from ...sampling.plan import StepRange


@dataclass(frozen=True)
class ReCamMasterInput:
    """A video and the camera it is to be seen by.

    Args:
        poses: ``[T, 12]``, see ``cameras.relative_poses``.
        source: latent of the video, un-normalised ``[1, C, T, H, W]``.

    Raises:
        InputError: another number of poses than of latent frames.
    """

    poses: Tensor
    source: Tensor

    def __post_init__(self) -> None:
        poses, frames = self.poses.shape[0], self.source.shape[2]
        if poses != frames:
            raise InputError(
                "camera_poses",
                f"{poses} poses for {frames} latent frames; make both from a video of "
                f"{(frames - 1) * 4 + 1} frames",
            )

    @property
    def steps(self) -> StepRange:
        """All steps."""
        return StepRange()

    def window(self, frames: slice) -> ReCamMasterInput:
        """Poses and video of a run of latent frames."""
        return replace(self, poses=self.poses[frames], source=self.source[:, :, frames])
