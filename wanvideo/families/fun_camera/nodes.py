"""A camera for Fun Camera models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ....nodes.base import CATEGORY, WanNode
from ....nodes.host import io
from ....nodes.inputs import step_inputs
from ....nodes.sockets import CameraPoses, ImageEmbeds, ImageEmbedsSocket
from ....nodes.vae import report
from ...conditioning.geometry import VideoGeometry
from ...conditioning.step_range import StepRange
from ...errors import InputError
from .cameras import CHANNELS, Camera, EncodedCamera, camera_of_poses
from .inputs import CAMERA, FunCameraInput


class WanVideoFunCameraEmbeds(WanNode):
    """A camera path, and a video of its length."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoFunCameraEmbeds",
            display_name="WanVideo FunCamera Embeds",
            category=CATEGORY,
            description="A moving camera for Fun Camera models. Connect it to control_embeds of WanVideo "
            "ImageToVideo Encode, which then decides size and length.",
            inputs=[
                io.MultiType.Input(
                    "poses",
                    types=[CameraPoses, io.WanCameraEmbedding],
                    tooltip="One pose per frame (CAMERACTRL_POSES), or the camera_embedding of ComfyUI's "
                    "WanCameraEmbedding.",
                ),
                _size("width", 832, 2048),
                _size("height", 480, 29048),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the camera is added; 0 is none. How far it moves is in the poses.",
                ),
                *step_inputs("the camera"),
            ],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        poses: object,
        width: int,
        height: int,
        strength: float,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        """Embeds as long as the camera path."""
        camera = as_camera(poses)
        geometry, changes = VideoGeometry.snapped(width, height, camera.frames)
        report(cls.shown_name(), changes)
        value = FunCameraInput(camera=camera, strength=strength, steps=StepRange(start_percent, end_percent))
        return io.NodeOutput(ImageEmbeds(geometry).with_input(CAMERA, value))


def as_camera(value: object) -> Camera:
    """A camera from a list of poses, or from what ComfyUI's WanCameraEmbedding makes.

    Raises:
        InputError: neither.
    """
    if isinstance(value, Tensor) and value.ndim == 5:
        if value.shape[:2] != (1, CHANNELS) or not value.numel():
            raise InputError(
                "poses",
                f"expected a camera embedding [1, 24, frames, height, width], got {list(value.shape)}",
            )
        return EncodedCamera(value[0])
    entries = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
    if isinstance(entries, Sequence) and not isinstance(entries, str):
        return camera_of_poses([_plain(entry) for entry in entries])
    raise InputError("poses", f"expected a list of camera poses, got {type(value).__name__}")


def _plain(entry: object) -> Sequence[float]:
    """An entry as numbers; NumPy arrays and tensors of numbers become lists."""
    numbers = entry.tolist() if isinstance(entry, Tensor | np.ndarray) else entry
    return list(numbers) if isinstance(numbers, Sequence) else []


def _size(name: str, default: int, most: int) -> io.Int.Input:
    tooltip = "Pixels, if the embeds go to the sampler as they are."
    return io.Int.Input(name, default=default, min=64, max=most, step=8, tooltip=tooltip)


NODES: list[type[WanNode]] = [WanVideoFunCameraEmbeds]
