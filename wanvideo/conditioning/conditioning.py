"""Everything one model pass is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor
from typing_extensions import Self

from .decode_plan import DecodePlan
from .geometry import VideoGeometry
from .step_range import StepRange
from .timed import windowed

if TYPE_CHECKING:
    from ..sampling.edits import LatentEdit
    from ..sampling.guidance import GuidanceLevel
    from ..transformer.config import WanConfig
    from .run_setup import RunSetup


@dataclass(frozen=True, kw_only=True)
class FamilyInput:
    """What a user gave a family for a run. Families derive frozen dataclasses from it.

    Every method has a default that changes nothing; a family overrides what it needs. Latents in it are
    un-normalised until :meth:`prepared`. Tensors that run along the video are :class:`~.timed.Timed`.

    Args:
        steps: the steps in which it takes part.
    """

    uses_model: ClassVar[bool] = True
    """Whether the model must have filled a point under the input's name."""
    is_optional: ClassVar[bool] = False
    """A model that has no use for it runs without it, and that is said; otherwise it is an error."""
    needs: ClassVar[str] = ""
    """What a model must be or have for this input, and what to do: the end of a sentence for the user."""

    steps: StepRange = field(default=StepRange())

    @property
    def leading_frames(self) -> int:
        """Latent frames it puts in front of the video's own; sampled with it, cut when it is decoded."""
        return 0

    @property
    def trailing_frames(self) -> int:
        """Latent frames it puts behind the video's own."""
        return 0

    @property
    def cut_frames(self) -> int:
        """Latent frames that are cut off the end of the result."""
        return 0

    @property
    def first_step(self) -> int:
        """Step of the whole schedule that a run with it begins at, if it would begin before."""
        return 0

    def extra_tokens(self, geometry: VideoGeometry) -> int:
        """Tokens it adds to the sequence in segments of its own, for the memory plan."""
        del geometry
        return 0

    def working_bytes(self, tokens: int, config: WanConfig, value_bytes: int) -> int:
        """Memory of the device it needs during a forward, beside that of the longer sequence.

        Args:
            tokens: length of the whole sequence.
            config: of the transformer.
            value_bytes: of one number of the token stream.
        """
        del tokens, config, value_bytes
        return 0

    def check(self, setup: RunSetup) -> None:
        """Refuse what cannot be used in this run; called before any weight is moved.

        Raises:
            InputError: what was given, what was expected, what to do.
        """

    def prepared(self, setup: RunSetup) -> Self:
        """Itself as the points want it, once per run: fitted to it, normalised, on the device."""
        del setup
        return self

    def at(self, step: int, count: int) -> Self | None:
        """Itself at a step, with the strengths of that step; ``None`` where it takes no part."""
        return self if self.steps.contains(step, count) else None

    def window(self, frames: Sequence[int]) -> Self:
        """Itself, cut to latent frames of the run (leading ones count): every ``Timed`` in it is."""
        return windowed(self, frames)

    def guidance(self, steps: int) -> GuidanceLevel | None:
        """The guidance scale of its own it wants, with a pass in which it is off and one in which it is on.

        Args:
            steps: of the run.
        """
        del steps

    def variant(self, *, is_on: bool, is_negative: bool) -> Self | None:
        """Itself in one guidance pass.

        Args:
            is_on: False in the passes below its own guidance level: ``None`` or the null value it was
                trained with.
            is_negative: whether the text of the pass is the negative prompt.
        """
        del is_negative
        return self if is_on else None

    def frame_timesteps(self, timestep: float) -> Mapping[int, float]:
        """Timesteps of single latent frames of the run that differ from ``timestep``: 0 is a clean frame."""
        del timestep
        return {}

    def edits(self) -> Sequence[LatentEdit]:
        """Edits of the latent around the steps; called when it is prepared."""
        return ()

    def decode_plan(self) -> DecodePlan:
        """What the decoder has to know of the latent."""
        return DecodePlan(leading_frames=self.leading_frames)


@dataclass(frozen=True)
class Conditioning:
    """Text and family inputs of one pass.

    Args:
        geometry: size of the video, leading and trailing frames included.
        text: encoded prompts ``[L, text_width]``, unpadded; several share the frames evenly. Empty for
            a pass without text: cross-attention to text is then left out.
        inputs: by name; the points they go to have the same names.
    """

    geometry: VideoGeometry
    text: tuple[Tensor, ...] = ()
    inputs: Mapping[str, FamilyInput] = field(default_factory=dict[str, FamilyInput])

    def active(self, step: int, total_steps: int) -> Conditioning:
        """As it is at ``step``: without the inputs that take no part then."""
        current = {name: value.at(step, total_steps) for name, value in self.inputs.items()}
        kept = {name: value for name, value in current.items() if value is not None}
        is_same = all(kept.get(name) is value for name, value in self.inputs.items())
        return self if is_same else replace(self, inputs=kept)

    def frame_timesteps(self, timestep: float) -> tuple[float, ...]:
        """The timestep of every latent frame; one value when all have the same."""
        own: dict[int, float] = {}
        for value in self.inputs.values():
            own.update(value.frame_timesteps(timestep))
        if not own:
            return (timestep,)
        return tuple(own.get(frame, timestep) for frame in range(self.geometry.latent_frames))

    def window(self, frames: Sequence[int]) -> Conditioning:
        """Cut to latent frames; every input cuts itself."""
        return replace(
            self,
            geometry=self.geometry.with_latent_frames(len(frames)),
            inputs={name: value.window(frames) for name, value in self.inputs.items()},
        )
