"""Camera paths for ReCamMaster."""

from __future__ import annotations

import torch
from torch import Tensor

from ....nodes.base import CATEGORY, WanNode
from ....nodes.host import io
from ....nodes.sockets import ImageEmbeds, ImageEmbedsSocket
from ...conditioning.geometry import VideoGeometry
from ...conditioning.timed import Timed
from ...errors import InputError
from .cameras import PRESETS, orbit_poses, preset_poses, relative_poses
from .family import FAMILY
from .inputs import ReCamMasterInput

CameraPoses = io.Custom("CAMERAPOSES")  # camera-to-world [T, 4, 4], see cameras.py
STRIDE = 8  # pixels per latent; ReCamMaster is a Wan 2.1 model


class WanVideoReCamMasterDefaultCamera(WanNode):
    """A preset camera move."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoReCamMasterDefaultCamera",
            display_name="WanVideo ReCamMaster Default Camera",
            category=CATEGORY,
            description="One of the ten camera moves that ReCamMaster was published with "
            "(https://github.com/KwaiVGI/ReCamMaster).",
            inputs=[
                io.Combo.Input(
                    "camera_type",
                    options=list(PRESETS),
                    default="pan_right",
                    tooltip="pan and tilt turn the camera in place, zoom drives it forwards or backwards, "
                    "translate and arc move it while it keeps looking at the subject.",
                ),
                io.Latent.Input(
                    "latents", tooltip="The video to be seen anew, encoded: the move gets its length."
                ),
            ],
            outputs=[CameraPoses.Output(display_name="camera_poses")],
        )

    @classmethod
    def run(cls, *, camera_type: str, latents: dict[str, Tensor]) -> io.NodeOutput:
        """A pose for every latent frame."""
        return io.NodeOutput(preset_poses(camera_type, _video(latents).shape[2]))


class WanVideoReCamMasterGenerateOrbitCamera(WanNode):
    """A camera on a circle."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoReCamMasterGenerateOrbitCamera",
            display_name="WanVideo ReCamMaster Generate Orbit Camera",
            category=CATEGORY,
            description="A camera that goes round, for ReCamMaster (https://github.com/KwaiVGI/ReCamMaster).",
            inputs=[
                io.Int.Input(
                    "num_frames",
                    default=81,
                    min=1,
                    max=1000,
                    step=1,
                    tooltip="Length of the video in frames; there is a pose for every fourth one.",
                ),
                io.Int.Input(
                    "degrees",
                    default=90,
                    min=-180,
                    max=180,
                    step=1,
                    tooltip="How far the camera has gone round at the last frame; negative is the other way.",
                ),
            ],
            outputs=[CameraPoses.Output(display_name="camera_poses")],
        )

    @classmethod
    def run(cls, *, num_frames: int, degrees: int) -> io.NodeOutput:
        """A pose for every fourth frame."""
        return io.NodeOutput(orbit_poses(num_frames, degrees))


class WanVideoReCamMasterCameraEmbed(WanNode):
    """A video together with a camera path."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoReCamMasterCameraEmbed",
            display_name="WanVideo ReCamMaster Camera Embed",
            category=CATEGORY,
            description="What the ReCamMaster model needs: the video, and the camera to show it by "
            "(https://github.com/KwaiVGI/ReCamMaster).",
            inputs=[
                CameraPoses.Input("camera_poses", tooltip="As many poses as the video has latent frames."),
                io.Latent.Input("latents", tooltip="The video to be seen anew, encoded."),
            ],
            outputs=[
                ImageEmbedsSocket.Output(display_name="camera_embeds"),
                CameraPoses.Output(display_name="camera_poses", tooltip="The same poses, to look at them."),
            ],
        )

    @classmethod
    def run(cls, *, camera_poses: object, latents: dict[str, Tensor]) -> io.NodeOutput:
        """Embeds of the video's size."""
        video = _video(latents)
        _, _, frames, height, width = video.shape
        geometry = VideoGeometry(width * STRIDE, height * STRIDE, (frames - 1) * 4 + 1, STRIDE)
        camera = ReCamMasterInput(Timed(relative_poses(_poses(camera_poses)), axis=0), Timed(video))
        return io.NodeOutput(ImageEmbeds(geometry).with_input(FAMILY.name, camera), camera_poses)


def _video(latents: dict[str, Tensor]) -> Tensor:
    """The latent ``[1, C, T, H, W]`` of a LATENT socket."""
    samples = latents["samples"]
    video = samples[None] if samples.ndim == 4 else samples
    if video.ndim != 5 or video.shape[0] != 1:
        raise InputError(
            "latents",
            f"expected the latent of one video [1, channels, frames, height, width], got shape "
            f"{tuple(samples.shape)}",
        )
    return video


def _poses(value: object) -> Tensor:
    """Poses ``[T, 4, 4]`` from this pack's nodes or another's (NumPy arrays, lists of matrices)."""
    rows = (
        [torch.as_tensor(pose, dtype=torch.float64) for pose in value] if isinstance(value, list) else value
    )
    poses = torch.stack(rows) if isinstance(rows, list) and rows else torch.as_tensor(rows)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not poses.shape[0]:
        raise InputError("camera_poses", f"expected matrices [frames, 4, 4], got shape {tuple(poses.shape)}")
    return poses


NODES: list[type[WanNode]] = [
    WanVideoReCamMasterDefaultCamera,
    WanVideoReCamMasterGenerateOrbitCamera,
    WanVideoReCamMasterCameraEmbed,
]
