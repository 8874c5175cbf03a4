"""What VACE is conditioned on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import Self

from ...conditioning.conditioning import FamilyInput
from ...conditioning.run_setup import RunSetup
from ...conditioning.step_range import StepRange
from ...conditioning.timed import Timed
from ...errors import InputError
from ...sampling.guidance import per_step
from ...transformer.config import WanConfig

log = logging.getLogger(__name__)

VACE = "vace"
MASK_CELL = 8  # rows and columns of mask values per latent
MASK_CHANNELS = MASK_CELL**2
LATENTS_PER_TOKEN = 4
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class VaceContext:
    """One video to go by, and what of it is to be made anew.

    Latents are un-normalised and have the frames of the video, until prepared: then they are normalised and
    have the leading and trailing frames of the run as well.

    Args:
        inactive: ``[1, C, T, h, w]``: what is kept, encoded with grey in place of the rest.
        reactive: ``[1, C, T, h, w]``: what is made anew, with grey in place of the rest.
        mask: ``[1, 64, T, h, w]``, 1 where it is made anew; see ``preparation.mask_channels``.
        references: pictures, ``[1, C, 1, h, w]`` each, for the first leading frames.
        strength: factor on what it adds to the video's tokens; one, or a list per step.
        steps: in which it takes part.
    """

    inactive: Timed
    reactive: Timed
    mask: Timed
    references: tuple[Tensor, ...] = ()
    strength: float | Sequence[float] = 1.0
    steps: StepRange = field(default=StepRange())

    def at(self, step: int, count: int) -> VaceContext | None:
        """Itself with the strength of one step; ``None`` where it adds nothing."""
        strength = per_step("strength", self.strength, count)[step]
        if not self.steps.contains(step, count) or strength == 0.0:
            return None
        return self if strength == self.strength else replace(self, strength=strength)

    def channels(self, frames: slice) -> Tensor:
        """``[1, 2 C + 64, t, h, w]`` of some of its frames, as the patch embedding wants them."""
        parts = (self.inactive, self.reactive, self.mask)
        return torch.cat([part.values[:, :, frames] for part in parts], dim=1)

    def check(self, setup: RunSetup) -> None:
        """Refuse what cannot be used in this run.

        Raises:
            InputError: latents of another VAE, too few frames, strengths that are no numbers.
        """
        for latent in (self.inactive.values, self.reactive.values, *self.references):
            setup.check_latent(latent, input_name="vace_embeds")
        frames, wanted = self.inactive.values.shape[2], setup.geometry.latent_frames
        if frames < wanted:
            raise InputError(
                "vace_embeds",
                f"encoded for {4 * frames - 3} frames, this video has {setup.geometry.frames}; set "
                "num_frames of WanVideo VACE Encode to that",
            )
        per_step("strength", self.strength, 1)

    def prepared(self, setup: RunSetup) -> VaceContext:
        """Itself in the size of the run; leading frames without a reference are zeros, trailing ones too."""
        wanted = setup.geometry.latent_frames
        if self.inactive.values.shape[2] > wanted:
            log.warning(
                "vace_embeds: encoded for %d frames, the first %d are used",
                4 * self.inactive.values.shape[2] - 3,
                setup.geometry.frames,
            )
        inactive, reactive = (
            setup.in_place(setup.fitted(part.values[:, :, :wanted], input_name="vace_embeds"))
            for part in (self.inactive, self.reactive)
        )
        for frame, latent in enumerate(self.references):
            inactive[:, :, frame : frame + 1] = setup.fitted(latent, input_name="ref_images")
        mask = self.mask.values[:, :, :wanted].to(inactive)
        if mask.shape[-2:] != inactive.shape[-2:]:
            mask = functional.interpolate(mask, size=(wanted, *inactive.shape[-2:]), mode="nearest")
        return replace(
            self, inactive=Timed(inactive), reactive=Timed(reactive), mask=Timed(setup.in_place(mask))
        )


@dataclass(frozen=True)
class VaceInput(FamilyInput):
    """Videos to go by; what each of them adds is summed.

    Args:
        contexts: at least one, each with strengths and steps of its own.
    """

    needs: ClassVar[str] = (
        "its VACE module: choose the file in WanVideo VACE Module Select and connect that to extra_model of "
        "the model loader, or load a model that has VACE in it"
    )

    contexts: tuple[VaceContext, ...]

    @property
    def leading_frames(self) -> int:
        """One for each reference picture; contexts share them."""
        return max(len(context.references) for context in self.contexts)

    def working_bytes(self, tokens: int, config: WanConfig, value_bytes: int) -> int:
        """For each context the tokens of its own, and its channels in float32."""
        channels = 2 * config.out_channels + MASK_CHANNELS
        token = config.dim * value_bytes + LATENTS_PER_TOKEN * channels * FLOAT32_BYTES
        return len(self.contexts) * tokens * token

    def check(self, setup: RunSetup) -> None:
        """Refuse contexts that cannot be used in this run; see ``VaceContext.check``."""
        for context in self.contexts:
            context.check(setup)

    def prepared(self, setup: RunSetup) -> Self:
        """Its contexts in the size of the run."""
        return replace(self, contexts=tuple(context.prepared(setup) for context in self.contexts))

    def at(self, step: int, count: int) -> Self | None:
        """The contexts that take part in a step, with its strengths."""
        current = [context.at(step, count) for context in self.contexts]
        kept = tuple(context for context in current if context is not None)
        return replace(self, contexts=kept) if kept and self.steps.contains(step, count) else None

    def preview(self) -> tuple[Tensor, Tensor]:
        """What the first context keeps, as a latent, and the mask ``[T, h, w]`` of what is made anew."""
        first = self.contexts[0]
        return first.inactive.values, first.mask.values[0].amax(dim=0)
