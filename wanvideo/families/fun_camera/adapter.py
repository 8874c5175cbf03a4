"""From rays to what is added to the video's tokens.

Source: VideoX-Fun, ``videox_fun/models/wan_camera_adapter.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...conditioning.geometry import PATCH_SIZE, TEMPORAL_STRIDE
from ...transformer.context import RunState
from .cameras import CHANNELS
from .inputs import NO_FRAME, FunCameraInput, Shot


class ResidualBlock(nn.Module):
    """``x + conv2(relu(conv1(x)))`` with 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, D, rows, columns]`` in and out."""
        return x + self.conv2(F.relu(self.conv1(x)))


class CameraAdapter(nn.Module):
    """Rays of whole pictures to one vector per token (``control_adapter``), in the compute dtype.

    Args:
        width: of the token stream.
        stride: pixels per latent of the VAE: the rays of that many rows and columns become channels.
        blocks: residual blocks.
    """

    parameter_dtype = "compute"

    def __init__(self, width: int, stride: int, *, blocks: int = 1) -> None:
        super().__init__()
        self.stride = stride
        patch = PATCH_SIZE[1:]
        self.conv = nn.Conv2d(CHANNELS * stride**2, width, kernel_size=patch, stride=patch)
        self.residual_blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))

    def forward(self, rays: Tensor) -> Tensor:
        """``[N, 24, H, W] -> [N, H/2s, W/2s, D]`` for a stride of s pixels per latent."""
        cells = F.pixel_unshuffle(rays.to(self.conv.weight.dtype), self.stride)
        return self.residual_blocks(self.conv(cells)).movedim(1, -1)


class CameraResidual:
    """Adds the camera to the tokens; computed once per run, frame by frame, and kept.

    Args:
        embedder: the adapter.
    """

    def __init__(self, embedder: CameraAdapter) -> None:
        self.embedder = embedder

    def prepare(self, family_input: FunCameraInput, run: RunState) -> None:
        """See ``transformer.points.EmbedResidual``."""
        self._whole(family_input, run)

    def residual(self, family_input: FunCameraInput, tokens: Tensor, run: RunState) -> Tensor:
        """See ``transformer.points.EmbedResidual``; zeros in frames that no camera sees."""
        del tokens
        shot = family_input.shot
        assert shot is not None
        return frames_of(self._whole(family_input, run), shot.frames.values.tolist())[None]

    def _whole(self, family_input: FunCameraInput, run: RunState) -> Tensor:
        """``[T, rows, columns, D]`` of all frames the camera is given for; windows share them."""
        shot = family_input.shot
        assert shot is not None
        # the camera is kept beside its vectors, so that its id stays its own
        return run.memo(
            (CameraResidual, id(shot.camera)),
            lambda: (shot.camera, self._computed(shot, family_input.strength, run)),
        )[1]

    def _computed(self, shot: Shot, strength: float, run: RunState) -> Tensor:
        weight = self.embedder.conv.weight
        frames = (shot.camera.frames - 1) // TEMPORAL_STRIDE + 1
        size = [pixels // (PATCH_SIZE[1] * self.embedder.stride) for pixels in shot.size]
        whole = torch.empty((frames, *size, weight.shape[0]), dtype=weight.dtype, device=weight.device)
        for frame in range(frames):
            run.options.check()
            rays = shot.camera.rays(frame, shot.size, weight.device)
            whole[frame] = self.embedder(rays[None])[0] * strength
        return whole


def frames_of(whole: Tensor, frames: list[int]) -> Tensor:
    """Frames of ``[T, rows, columns, D]`` by index; zeros for ``NO_FRAME``. All of them without a copy."""
    if frames == list(range(whole.shape[0])):
        return whole
    chosen = whole[[max(0, frame) for frame in frames]]
    for place, frame in enumerate(frames):
        if frame == NO_FRAME:
            chosen[place] = 0.0
    return chosen
