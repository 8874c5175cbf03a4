"""Inputs that several nodes have."""

from __future__ import annotations

from .host import io


def size_input(name: str, default: int) -> io.Int.Input:
    """Width or height in pixels."""
    tooltip = "Pixels, a multiple of 16 (32 for the 5B)."
    return io.Int.Input(name, default=default, min=64, max=8096, step=8, tooltip=tooltip)


def frames_input(
    tooltip: str = "Length in frames, 4n + 1: 1 is a picture, 81 are five seconds at 16 per second.",
) -> io.Int.Input:
    """Length of the video."""
    return io.Int.Input("num_frames", default=81, min=1, max=10000, step=4, tooltip=tooltip)


def strength_input(
    name: str, tooltip: str, *, default: float = 1.0, optional: bool = False
) -> io.Float.Input:
    """A factor from 0 to 10."""
    return io.Float.Input(
        name, default=default, min=0.0, max=10.0, step=0.001, tooltip=tooltip, optional=optional
    )


def step_inputs(what: str, *, prefix: str = "") -> list[io.Input]:
    """The first and the last step something takes part in, as parts of 1.

    Args:
        what: takes part, for the tooltip.
        prefix: of the inputs' names ``start_percent`` and ``end_percent``.
    """
    ends = (("start_percent", 0.0, "first"), ("end_percent", 1.0, "last"))
    return [
        io.Float.Input(
            prefix + name,
            default=default,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip=f"The {end} step of {what}, as a part of this sampler's steps.",
        )
        for name, default, end in ends
    ]
