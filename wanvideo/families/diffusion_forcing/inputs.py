"""The frames a video goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor
from typing_extensions import Self

from ...conditioning.conditioning import FamilyInput
from ...conditioning.run_setup import RunSetup
from ...errors import InputError
from ...sampling.edits import CleanFrames, LatentEdit
from ...sampling.noise import NoiseSource, noised, seeded_generator
from ...sampling.solver import Step

TRAINING_STEPS = 1000


@dataclass(frozen=True)
class PrefixInput(FamilyInput):
    """Latent frames that begin the video and stay as they are.

    The model sees them with a little noise and is told so, which keeps a long video from drifting
    (SkyReels V2, ``addnoise_condition``).

    Args:
        latent: ``[1, C, K, h, w]``, un-normalised until prepared.
        timestep: of the noise the model sees on them, 0 to 1000.
        seed: of that noise.
    """

    uses_model: ClassVar[bool] = False

    latent: Tensor
    timestep: float = 10.0
    seed: int = 0

    def check(self, setup: RunSetup) -> None:
        """Refuse a latent of another VAE, or one that leaves no frame to make.

        Raises:
            InputError: it names both lengths.
        """
        setup.check_latent(self.latent, input_name="prefix_samples")
        given, frames = self.latent.shape[2], setup.geometry.latent_frames
        if given >= frames:
            raise InputError(
                "prefix_samples",
                f"{given} latent frames are given and the video has {frames}: none is left to make; "
                "give fewer frames or make the video longer",
            )

    def prepared(self, setup: RunSetup) -> Self:
        """Normalised, in the picture size of the run."""
        return replace(self, latent=setup.fitted(self.latent, input_name="prefix_samples"))

    def window(self, frames: Sequence[int]) -> Self:
        """The given frames among ``frames``."""
        kept = [frame for frame in frames if frame < self.latent.shape[2]]
        return replace(self, latent=self.latent[:, :, kept])

    def frame_timesteps(self, timestep: float) -> Mapping[int, float]:
        """The given frames have the timestep of their own noise."""
        del timestep
        return dict.fromkeys(range(self.latent.shape[2]), self.timestep)

    def edits(self) -> Sequence[LatentEdit]:
        """They are put back after each step, and noised for the model."""
        return [NoisedPrefix(self.latent, self.timestep / TRAINING_STEPS, self.seed)]


class NoisedPrefix(CleanFrames):
    """Clean frames at the beginning, shown to the model with noise of one level.

    Args:
        clean: latent ``[B or 1, C, K, H, W]``, normalised.
        sigma: of the noise, 0 to 1.
        seed: of the noise; every evaluation draws anew.
    """

    def __init__(self, clean: Tensor, sigma: float, seed: int) -> None:
        super().__init__(clean, range(clean.shape[2]))
        self._prefix = clean
        self._sigma = sigma
        self._noise = NoiseSource(seeded_generator(seed), clean)

    def model_input(self, x: Tensor, step: Step) -> Tensor:
        """The latent with the noised frames in front."""
        shown = super().model_input(x, step)
        if self._sigma:
            shown[:, :, : self._prefix.shape[2]] = noised(self._prefix, self._noise(), self._sigma).to(shown)
        return shown
