"""What Phantom is conditioned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Self

from ...conditioning.conditioning import FamilyInput
from ...conditioning.geometry import VideoGeometry
from ...conditioning.run_setup import RunSetup
from ...errors import InputError
from ...sampling.guidance import GuidanceLevel, per_step

PHANTOM = "phantom"
GuidanceForm = Literal["three passes", "as WanVideoWrapper"]
THREE_PASSES: GuidanceForm = "three passes"
AS_WRAPPER: GuidanceForm = "as WanVideoWrapper"


@dataclass(frozen=True)
class PhantomInput(FamilyInput):
    """Reference pictures of subjects.

    Args:
        references: latents ``[1, C, k, h, w]``, each latent frame a picture of its own; un-normalised. Once
            prepared it is one normalised latent ``[1, C, K, h, w]`` of the video's picture size.
        scale: guidance scale of the references, one or a list per step.
        form: ``THREE_PASSES`` as the model was published; ``AS_WRAPPER`` shows the references in every
            pass, so that ``scale`` has no effect, and cuts the result by as many latent frames as there are
            references.
    """

    needs: ClassVar[str] = "a text-to-video model; Phantom is one itself"

    references: tuple[Tensor, ...]
    scale: float | Sequence[float] = 5.0
    form: GuidanceForm = THREE_PASSES

    @property
    def count(self) -> int:
        """Number of references."""
        return sum(latent.shape[2] for latent in self.references)

    @property
    def cut_frames(self) -> int:
        """None, but for the latent frames WanVideoWrapper cuts off."""
        return self.count if self.form == AS_WRAPPER else 0

    def extra_tokens(self, geometry: VideoGeometry) -> int:
        """A frame's tokens for every reference."""
        _, rows, columns = geometry.token_grid
        return self.count * rows * columns

    def check(self, setup: RunSetup) -> None:
        """Refuse latents of another VAE, and a result of which nothing would be left.

        Raises:
            InputError: it says what to change.
        """
        for number, latent in enumerate(self.references, 1):
            setup.check_latent(latent, input_name=f"phantom_latent_{number}")
        if self.cut_frames >= setup.latent_frames:
            raise InputError(
                "num_frames",
                f"guidance {AS_WRAPPER!r} cuts the result by {self.cut_frames} latent frames, and this video "
                f"has {setup.latent_frames}; choose {THREE_PASSES!r}, or a longer video",
            )

    def prepared(self, setup: RunSetup) -> Self:
        """Its references as one normalised latent of the run's picture size."""
        fitted = [
            setup.fitted(latent, input_name=f"phantom_latent_{number}")
            for number, latent in enumerate(self.references, 1)
        ]
        return replace(self, references=(torch.cat(fitted, dim=2),))

    def guidance(self, steps: int) -> GuidanceLevel | None:
        """A level of its own, turned on before the text: ``v0 + scale (v1 - v0) + cfg (v2 - v1)``.

        ``v0`` has zero references and the negative prompt, ``v1`` the references, ``v2`` the prompt too.

        Source: https://github.com/Phantom-video/Phantom, ``generate.py`` and the pipeline it calls.
        """
        if self.form == AS_WRAPPER:
            return None
        scales = per_step("phantom_cfg_scale", self.scale, steps)
        in_steps = tuple(s if self.steps.contains(i, steps) else 1.0 for i, s in enumerate(scales))
        return GuidanceLevel(PHANTOM, in_steps)

    def variant(self, *, is_on: bool, is_negative: bool) -> Self:
        """Itself, or with the zeros that stand for no reference."""
        del is_negative
        if is_on:
            return self
        return replace(self, references=tuple(torch.zeros_like(latent) for latent in self.references))
