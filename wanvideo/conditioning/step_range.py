"""A window of a run's steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRange:
    """A window of a run's steps in percent.

    The percent of step ``i`` of ``n`` is ``i / n`` of this run (not of the whole schedule), and both ends
    belong to the window, as in WanVideoWrapper: an end of 1 covers the last step, ``k / n`` covers k + 1.

    Args:
        start: 0 to 1.
        end: 0 to 1.
    """

    start: float = 0.0
    end: float = 1.0

    def contains(self, step: int, count: int) -> bool:
        """Whether ``step`` (0-based) of ``count`` lies in the window."""
        return self.start <= step / count <= self.end

    def steps(self, count: int) -> tuple[int, ...]:
        """The steps of a run of ``count`` in the window."""
        return tuple(step for step in range(count) if self.contains(step, count))
