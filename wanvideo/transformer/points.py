"""The places where a family may take part in the forward.

Each point is empty by default and then costs nothing. A family fills points in ``Family.extend`` while
the model is on the meta device; at run time a point is called only when the conditioning carries an
input under its name. That is usually the family's name; inputs that serve several families ("image",
"clip", "control") have their own. Points are numbered as in docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from ..errors import WanError
from .context import AttentionRule, BlockContext, RunState
from .segments import Segment

Grid = tuple[int, int, int]


class ChannelPart(Protocol):
    """Point 1: channels joined to the latent before patch embedding."""

    @property
    def rank(self) -> int:
        """Parts are joined in ascending rank, after the noise."""
        ...

    @property
    def width(self) -> int:
        """Number of channels."""
        ...

    @property
    def required(self) -> str:
        """What is missing when there is no input, and what to do; empty if the part stands in for it then."""
        ...

    def channels(self, family_input: Any | None, latent: Tensor) -> Tensor:
        """``[B or 1, width, T, H, W]`` for ``latent``; called without input too, since the width is fixed."""
        ...


class Embedder(Protocol):
    """Point 2: another patch embedding for the main segment."""

    def embed(self, latent: Tensor) -> Tensor:
        """``[B, C, T, H, W] -> [B, T, H/2, W/2, D]``, a new tensor: the blocks overwrite it."""
        ...


class SegmentPoint(Protocol):
    """Point 3: segments that join the sequence before or after the video's own tokens."""

    def segments(
        self, family_input: Any, grid: Grid, timesteps: Sequence[float]
    ) -> tuple[Sequence[Segment], Sequence[Segment]]:
        """Segments to put before and after ``main``.

        Args:
            family_input: the input.
            grid: frames, rows and columns of ``main``, whose positions begin at 0.
            timesteps: of ``main``: one, or one per frame.
        """
        ...


class EmbedResidual(Protocol):
    """Point 4: added to the main token grid right after patch embedding."""

    @property
    def embedder(self) -> nn.Module | None:
        """The module behind it, if it is used once per run only; dropped from the device after that."""
        ...

    def prepare(self, family_input: Any, run: RunState) -> None:
        """Compute what serves all steps (``run.memo``), before the first forward."""
        ...

    def residual(self, family_input: Any, tokens: Tensor, run: RunState) -> Tensor:
        """``[B or 1, T, H/2, W/2, D]`` for tokens of that shape; ``run.memo`` keeps what serves all steps."""
        ...


class TimeEdit(Protocol):
    """Point 5: added to the time embedding (frames per second, guidance, ...)."""

    def edit(self, family_input: Any, embedding: Tensor) -> Tensor:
        """``[S, D]`` in, ``[S, D]`` out."""
        ...


class ContextPart(Protocol):
    """Point 6: rows that join the CLIP image rows in cross-attention."""

    @property
    def embedder(self) -> nn.Module | None:
        """The module that embeds them, once per run; dropped from the device after that."""
        ...

    @property
    def when_missing(self) -> str:
        """What it means that there is no input, for a warning; empty when that is as it should be."""
        ...

    def rows(self, family_input: Any) -> Tensor:
        """``[P, L, D]``, embedded; P pictures share the frames of the video evenly."""
        ...


class Session(Protocol):
    """Point 9, during one forward.

    Blocks overwrite the tokens they are given. Whoever keeps tokens clones them.
    """

    def before_block(self, index: int, tokens: Tensor) -> Tensor:
        """Tokens entering block ``index``; a block of the stream itself at this place has run."""
        ...

    def run_block(self, index: int, block: nn.Module, tokens: Tensor) -> Tensor:
        """Run the stream's own block that stands before block ``index``; its weights are on the device.

        Args:
            index: as in ``SideStream.blocks``.
            block: of the stream.
            tokens: about to enter block ``index``; may be changed in place.

        Returns:
            The tokens.
        """
        ...

    def after_block(self, index: int, tokens: Tensor) -> Tensor:
        """Tokens leaving block ``index``; may be changed in place."""
        ...


@dataclass(frozen=True)
class StreamStart:
    """What a side stream is given at the start of a forward.

    Args:
        latent: what the patch embedding was given, ``[B, C, T, H, W]``: noise and joined channels.
        tokens: those entering the first block, ``[B, L, D]``, which overwrites them.
        context: of the blocks.
        run: of the forwards.
        channels: where in ``latent`` the channels of each channel part are, by its name.
    """

    latent: Tensor
    tokens: Tensor
    context: BlockContext
    run: RunState
    channels: Mapping[str, slice] = field(default_factory=dict[str, slice])


class SideStream(Protocol):
    """Point 9: a network beside the blocks (VACE, Uni3C, control nets)."""

    @property
    def blocks(self) -> Mapping[int, nn.Module]:
        """Blocks of its own, by the block before which they run: they are streamed like the model's.

        One that runs behind the last block has the number of blocks.
        """
        ...

    def begin(self, family_input: Any, start: StreamStart) -> Session:
        """Start for one forward."""
        ...


@dataclass(frozen=True)
class Stage:
    """A block in the order of execution.

    Args:
        index: of the model's block; of the one it stands before, for a block of a stream.
        block: the module.
        stream: name of the stream it belongs to, ``None`` for the model's own.
    """

    index: int
    block: nn.Module
    stream: str | None = None


class ExtensionError(WanError):
    """Two families want the same single place."""


@dataclass
class ExtensionPoints:
    """What the families of one model filled in; keys are family names.

    Point 7 (a sub-layer inside the block) is ``WanBlock.sublayers``, and point 10 (a forward that only
    records) is an :class:`AttentionRule` or :class:`Session` that keeps what it sees.
    """

    channels: dict[str, ChannelPart] = field(default_factory=dict)
    embedder: tuple[str, Embedder] | None = None
    segments: dict[str, SegmentPoint] = field(default_factory=dict)
    embed: dict[str, EmbedResidual] = field(default_factory=dict)
    time: dict[str, TimeEdit] = field(default_factory=dict)
    context: dict[str, ContextPart] = field(default_factory=dict)
    attention: dict[str, AttentionRule] = field(default_factory=dict)
    streams: dict[str, SideStream] = field(default_factory=dict)

    def add_channels(self, name: str, part: ChannelPart) -> None:
        """Say what channels an input of this name becomes.

        Raises:
            ExtensionError: that is said already.
        """
        if name in self.channels:
            raise ExtensionError(f"two families give the channels of the input {name!r}; load one of them")
        self.channels[name] = part

    def set_embedder(self, family: str, embedder: Embedder) -> None:
        """Take the single embedder slot.

        Raises:
            ExtensionError: another family has it.
        """
        if self.embedder is not None:
            raise ExtensionError(
                f"{family} and {self.embedder[0]} both replace the patch embedding; load one of them"
            )
        self.embedder = (family, embedder)

    def channel_places(self, first: int) -> dict[str, slice]:
        """Where each channel part is in the joined latent, in the order in which they are joined.

        Args:
            first: channels of the noise in front of them.
        """
        places: dict[str, slice] = {}
        for name, part in sorted(self.channels.items(), key=lambda item: item[1].rank):
            places[name] = slice(first, first + part.width)
            first += part.width
        return places

    def stages(self, blocks: Sequence[nn.Module]) -> list[Stage]:
        """The model's blocks and those of the streams, in the order of execution."""
        stages: list[Stage] = []
        for index in range(len(blocks) + 1):
            for name, stream in self.streams.items():
                if index in stream.blocks:
                    stages.append(Stage(index, stream.blocks[index], name))
            if index < len(blocks):
                stages.append(Stage(index, blocks[index]))
        return stages

    def names(self) -> set[str]:
        """Names under which a point is filled."""
        filled = {
            name
            for table in (
                self.channels,
                self.segments,
                self.embed,
                self.time,
                self.context,
                self.attention,
                self.streams,
            )
            for name in table
        }
        return filled | ({self.embedder[0]} if self.embedder else set())


def active(points: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """``(point, input)`` of every family that filled the point and has an input in this pass."""
    return [(point, inputs[name]) for name, point in points.items() if name in inputs]
