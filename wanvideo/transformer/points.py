"""The places where a family may take part in the forward.

Each point is empty by default and then costs nothing. A family fills points in ``Family.extend`` while
the model is on the meta device; at run time a point is called only when the conditioning carries an
input under the family's name. Points are numbered as in docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ..errors import WanError
from .context import AttentionRule, BlockContext
from .segments import Segment

Grid = tuple[int, int, int]


class ChannelPart(Protocol):
    """Point 1: channels joined to the latent before patch embedding."""

    rank: int
    """Parts are joined in ascending rank, after the noise."""

    def channels(self, family_input: Any | None, latent: Tensor) -> Tensor:
        """``[B, c, T, H, W]`` for ``latent``; called without input too, since the width is fixed."""
        ...


class Embedder(Protocol):
    """Point 2: another patch embedding for the main segment."""

    def embed(self, latent: Tensor) -> Tensor:
        """``[B, C, T, H, W] -> [B, T, H/2, W/2, D]``, a new tensor: the blocks overwrite it."""
        ...


class SegmentPoint(Protocol):
    """Point 3: segments that join the sequence before or after the video's own tokens."""

    def segments(self, family_input: Any, grid: Grid) -> tuple[Sequence[Segment], Sequence[Segment]]:
        """Segments to put before and after ``main``."""
        ...


class EmbedResidual(Protocol):
    """Point 4: added to the main token grid right after patch embedding."""

    def residual(self, family_input: Any, tokens: Tensor) -> Tensor:
        """``[B, T, H/2, W/2, D]`` for tokens of that shape."""
        ...


class TimeEdit(Protocol):
    """Point 5: added to the time embedding (frames per second, guidance, ...)."""

    def edit(self, family_input: Any, embedding: Tensor) -> Tensor:
        """``[S, D]`` in, ``[S, D]`` out."""
        ...


class ContextPart(Protocol):
    """Point 6: rows that join the CLIP image rows in cross-attention."""

    def rows(self, family_input: Any) -> Tensor:
        """``[B, L, D]``, embedded."""
        ...


class Session(Protocol):
    """Point 9, during one forward.

    Blocks overwrite the tokens they are given. Whoever keeps tokens clones them.
    """

    def before_block(self, index: int, tokens: Tensor) -> Tensor:
        """Tokens entering block ``index``."""
        ...

    def after_block(self, index: int, tokens: Tensor) -> Tensor:
        """Tokens leaving block ``index``."""
        ...


class SideStream(Protocol):
    """Point 9: a network beside the blocks (VACE, Uni3C, control nets)."""

    def begin(self, family_input: Any, tokens: Tensor, context: BlockContext) -> Session:
        """Start for one forward; ``tokens`` are those entering the first block, which overwrites them."""
        ...


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

    def names(self) -> set[str]:
        """Families that filled a point."""
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
