"""Fun Camera as the engine sees it: the points "camera" and, for Wan 2.1, "image"."""

from __future__ import annotations

from ...conditioning.channel_parts import StartImageChannels
from ...conditioning.geometry import spatial_stride_of
from ...conditioning.image import IMAGE
from ...errors import ModelFileError
from ...transformer.model import WanTransformer
from ...weights.checkpoint import Checkpoint
from ...weights.detect import ModelSpec
from ..family import Family
from .adapter import CameraAdapter, CameraResidual
from .cameras import CHANNELS
from .inputs import CAMERA

ADAPTER = "control_adapter"


class FunCamera(Family):
    """Wan 2.1 Fun Camera 1.1, Wan 2.2 Fun Camera A14B and 5B."""

    name = "fun_camera"
    capabilities = frozenset({"fun camera"})

    def extend(self, model: WanTransformer, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        """Add the adapter, and the start image's channels where no mask goes with them.

        Raises:
            ModelFileError: an adapter for another VAE than the transformer's.
        """
        latent_channels = spec.config.out_channels
        model.control_adapter = CameraAdapter(
            spec.config.dim, _stride(checkpoint, latent_channels), blocks=_blocks(checkpoint)
        )
        model.points.embed[CAMERA] = CameraResidual(model.control_adapter)
        if spec.config.in_channels == 2 * latent_channels:
            model.points.add_channels(IMAGE, StartImageChannels(latent_channels))


def _stride(checkpoint: Checkpoint, latent_channels: int) -> int:
    """Pixels per latent; the adapter takes 24 channels for each."""
    channels = checkpoint.shape(f"{ADAPTER}.conv.weight")[1]
    stride = spatial_stride_of(latent_channels)
    if channels != CHANNELS * stride**2:
        raise ModelFileError(
            checkpoint.path,
            f"its camera adapter takes {channels} channels, expected {CHANNELS * stride**2} with "
            f"{latent_channels} latent channels; the file is damaged or of an unknown model",
        )
    return stride


def _blocks(checkpoint: Checkpoint) -> int:
    start = f"{ADAPTER}.residual_blocks."
    return len({key.split(".")[2] for key in checkpoint if key.startswith(start)})


FAMILY = FunCamera()
