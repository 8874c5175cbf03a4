"""Time-to-Move as the engine sees it: it edits the latent around the steps, and every model will do."""

from __future__ import annotations

from ..family import Family
from .inputs import TIME_TO_MOVE


class TimeToMove(Family):
    """Is in no file: it has no weights and fills no point."""

    name = TIME_TO_MOVE


FAMILY = TimeToMove()
