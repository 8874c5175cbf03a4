"""CLIP rows of a picture as an input of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor
from typing_extensions import Self

from .clip import ClipEmbeds, check_rows
from .conditioning import FamilyInput
from .run_setup import RunSetup

CLIP = "clip"


@dataclass(frozen=True, kw_only=True)
class ClipInput(FamilyInput):
    """What cross-attention reads of a picture.

    Args:
        rows: ``[P, L, image_width]``; P pictures share the frames of the video evenly.
        negative: the same for passes with the negative prompt; ``None`` means that they read `rows` too.
    """

    is_optional: ClassVar[bool] = True
    needs: ClassVar[str] = "a model with a CLIP image branch, such as Wan 2.1 image to video"

    rows: Tensor
    negative: Tensor | None = None

    @classmethod
    def of(cls, embeds: ClipEmbeds) -> ClipInput:
        """The input for what a WANVIDIMAGE_CLIPEMBEDS socket carries."""
        return cls(rows=embeds.rows, negative=embeds.negative)

    def check(self, setup: RunSetup) -> None:
        """Refuse rows of another image encoder.

        Raises:
            InputError: it names both widths.
        """
        for rows in (self.rows, self.negative):
            if rows is not None:
                check_rows(rows, "clip_embeds", width=setup.config.image_width)

    def variant(self, *, is_on: bool, is_negative: bool) -> Self | None:
        """The rows of the pass."""
        if not is_on:
            return None
        return self if self.negative is None or not is_negative else replace(self, rows=self.negative)
