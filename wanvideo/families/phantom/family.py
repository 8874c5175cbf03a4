"""Phantom as the engine sees it: reference pictures as further frames behind the video.

Its checkpoints have the keys and shapes of text-to-video models, so the family is in all of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...transformer.model import WanTransformer
from ...transformer.patches import PatchEmbedding
from ...transformer.points import Grid
from ...transformer.rope import grid_positions
from ...transformer.segments import Segment
from ...weights.checkpoint import Checkpoint
from ...weights.detect import ModelSpec
from ..family import Family
from .inputs import PHANTOM, PhantomInput


@dataclass(frozen=True)
class ReferenceFrames:
    """Extension point 3: the references as frames that follow the video, as noisy as it is.

    Args:
        patch_embedding: of the model.
    """

    patch_embedding: PatchEmbedding

    def segments(
        self, family_input: PhantomInput, grid: Grid, timesteps: Sequence[float]
    ) -> tuple[Sequence[Segment], Sequence[Segment]]:
        """One segment behind ``main``; of several timesteps it has that of the noisy frames."""
        frames, rows, columns = grid
        (references,) = family_input.references
        positions = grid_positions((family_input.count, rows, columns), (frames, 0, 0))
        tokens = self.patch_embedding(references).flatten(1, 3)
        return [], [Segment(tokens, positions, (max(timesteps),), PHANTOM)]


class Phantom(Family):
    """Any text-to-video model takes references; only those of Phantom were trained to."""

    name = PHANTOM
    capabilities = frozenset({"t2v"})

    def extend(self, model: WanTransformer, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        """Fill the segment point; no module is added."""
        del checkpoint, spec
        model.points.segments[PHANTOM] = ReferenceFrames(model.patch_embedding)


FAMILY = Phantom()
