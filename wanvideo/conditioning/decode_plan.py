"""What a decoder has to know of a latent beside its numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class DecodePlan:
    """Frames of a latent that are not plainly part of the video.

    Args:
        leading_frames: latent frames in front of the video (references); not decoded.
        is_last_alone: the last latent frame was encoded as a picture of its own (an end image of a model
            that knows only start images): it is decoded so, and its picture is left out.
        latent_frames: length of the latent it belongs to, 0 while that is not known. A latent of another
            length was cut by someone who took care of this already.
    """

    leading_frames: int = 0
    is_last_alone: bool = False
    latent_frames: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the latent is nothing but the video."""
        return not self.leading_frames and not self.is_last_alone


def merged(plans: Iterable[DecodePlan], latent_frames: int) -> DecodePlan:
    """One plan for the latent of a run that several inputs took part in."""
    plans = tuple(plans)
    return DecodePlan(
        leading_frames=max((plan.leading_frames for plan in plans), default=0),
        is_last_alone=any(plan.is_last_alone for plan in plans),
        latent_frames=latent_frames,
    )
