"""The camera of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from typing_extensions import Self

from ...conditioning.conditioning import FamilyInput
from ...conditioning.length_fit import fit_remark
from ...conditioning.run_setup import RunSetup
from ...conditioning.timed import Timed
from ...transformer.config import WanConfig
from .cameras import Camera

log = logging.getLogger(__name__)

CAMERA = "camera"
NO_FRAME = -1


@dataclass(frozen=True)
class Shot:
    """A camera in a run.

    Args:
        camera: for as many frames as the video has.
        size: height and width of the video in pixels.
        frames: ``[T]``, for every latent frame of the run that of the camera; ``NO_FRAME`` for leading and
            trailing ones, which no camera sees.
    """

    camera: Camera
    size: tuple[int, int]
    frames: Timed


@dataclass(frozen=True)
class FunCameraInput(FamilyInput):
    """How the camera moves.

    Args:
        camera: any length.
        strength: factor on what is added to the tokens; 0 is no camera.
        shot: made when prepared.
    """

    needs: ClassVar[str] = "a Fun Camera model (Fun Control-Camera; its file has control_adapter)"

    camera: Camera
    strength: float = 1.0
    shot: Shot | None = None

    def working_bytes(self, tokens: int, config: WanConfig, value_bytes: int) -> int:
        """What is added to the tokens is computed once and kept for the run."""
        return tokens * config.dim * value_bytes

    def prepared(self, setup: RunSetup) -> Self:
        """With the camera for the frames and the picture size of the run."""
        geometry = setup.geometry
        remark = fit_remark("the camera path", self.camera.frames, geometry.frames)
        if remark:
            log.warning("%s", remark)
        camera = self.camera.fitted(geometry.frames)
        shifted = torch.arange(geometry.latent_frames) - NO_FRAME  # what is put around them becomes NO_FRAME
        frames = setup.in_place(shifted, axis=0) + NO_FRAME
        shot = Shot(camera, (geometry.height, geometry.width), Timed(frames, axis=0))
        return replace(self, shot=shot)

    def at(self, step: int, count: int) -> Self | None:
        """``None`` outside its steps and without strength."""
        return super().at(step, count) if self.strength else None
