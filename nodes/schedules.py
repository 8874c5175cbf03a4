"""Lists of values per step, and sigma thresholds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from .base import CATEGORY, WanNode
from .host import io, say

log = logging.getLogger(__name__)

EASINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "ease_in": lambda t: t * t,
    "ease_out": lambda t: t * (2 - t),
}


def ramp(
    steps: int, values: tuple[float, float], part: tuple[float, float], *, easing: str, outside: float
) -> list[float]:
    """One value per step: a ramp over a part of the steps, a constant outside it.

    Args:
        steps: number of steps.
        values: value at the first and at the last step of the part.
        part: first and last step of the part as fractions of ``steps``; the last one is included.
        easing: a key of ``EASINGS``.
        outside: value of the other steps.

    Returns:
        ``steps`` values, rounded to two decimals.
    """
    first, last = (min(int(steps * fraction), steps - 1) for fraction in part)
    if first > last:
        log.warning("start_percent %g lies behind end_percent %g: every step is %g", *part, outside)
    shape, (start, end) = EASINGS[easing], values
    result = [outside] * steps
    for step in range(first, last + 1):
        t = (step - first) / max(last - first, 1)
        result[step] = round(start + (end - start) * shape(t), 2)
    if part[0] > 0:
        result[0] = outside  # a start that rounds to step 0 still means "not from the first step"
    return result


def _percent_inputs(what: str) -> list[io.Input]:
    return [
        io.Combo.Input(
            "interpolation", options=list(EASINGS), default="linear", tooltip=f"How the {what} moves."
        ),
        io.Float.Input(
            "start_percent",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            round=0.01,
            tooltip="First step of the ramp, as a fraction of all steps.",
        ),
        io.Float.Input(
            "end_percent",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            round=0.01,
            tooltip="Last step of the ramp, as a fraction of all steps.",
        ),
    ]


def _value(name: str, default: float, most: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=most, step=0.01, round=0.01, tooltip=tooltip)


def _steps() -> io.Int.Input:
    return io.Int.Input(
        "steps", default=30, min=2, max=1000, step=1, tooltip="Number of steps; as many as the sampler's."
    )


def _list_output(values: Sequence[float]) -> io.NodeOutput:
    say(", ".join(f"{value:g}" for value in values))
    return io.NodeOutput(list(values))


class CreateCFGScheduleFloatList(WanNode):
    """CFG scale per step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="CreateCFGScheduleFloatList",
            display_name="Create CFG Schedule Float List",
            category=CATEGORY,
            description="A list of CFG scales, one per step, for the cfg input of the sampler. "
            "Steps outside the chosen part have CFG 1, which needs no second pass.",
            inputs=[
                _steps(),
                _value("cfg_scale_start", 5.0, 30.0, "CFG scale at the first step of the ramp."),
                _value("cfg_scale_end", 5.0, 30.0, "CFG scale at the last step of the ramp."),
                *_percent_inputs("CFG scale"),
            ],
            outputs=[io.Float.Output(display_name="float_list")],
        )

    @classmethod
    def run(
        cls,
        *,
        steps: int,
        cfg_scale_start: float,
        cfg_scale_end: float,
        interpolation: str,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        """One CFG scale per step, 1.0 outside the ramp."""
        values, part = (cfg_scale_start, cfg_scale_end), (start_percent, end_percent)
        return _list_output(ramp(steps, values, part, easing=interpolation, outside=1.0))


class CreateScheduleFloatList(WanNode):
    """Any value per step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="CreateScheduleFloatList",
            display_name="Create Schedule Float List",
            category=CATEGORY,
            description="A list of numbers, one per step, for inputs that may change during sampling: "
            "CFG, LoRA strength, control strength.",
            inputs=[
                _steps(),
                _value("start_value", 5.0, 100.0, "Value at the first step of the ramp."),
                _value("end_value", 5.0, 100.0, "Value at the last step of the ramp."),
                _value("default_value", 0.0, 1000.0, "Value of the steps outside the ramp."),
                *_percent_inputs("value"),
            ],
            outputs=[io.Float.Output(display_name="float_list")],
        )

    @classmethod
    def run(
        cls,
        *,
        steps: int,
        start_value: float,
        end_value: float,
        default_value: float,
        interpolation: str,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        """One value per step, ``default_value`` outside the ramp."""
        values, part = (start_value, end_value), (start_percent, end_percent)
        return _list_output(ramp(steps, values, part, easing=interpolation, outside=default_value))


class WanVideoSigmaToStep(WanNode):
    """A sigma threshold for a step input."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoSigmaToStep",
            display_name="WanVideo Sigma To Step",
            category=CATEGORY,
            description="Hands a sigma to an integer step input: the sampler's start_step and end_step "
            "read a value between 0 and 1 as the noise level where they start or stop.",
            inputs=[
                io.Float.Input(
                    "sigma",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Noise level, 1 is pure noise.",
                )
            ],
            outputs=[io.Int.Output(display_name="step")],
        )

    @classmethod
    def run(cls, *, sigma: float) -> io.NodeOutput:
        """The sigma itself; the sampler turns it into a step of its schedule."""
        return io.NodeOutput(sigma)


NODES: list[type[WanNode]] = [CreateCFGScheduleFloatList, CreateScheduleFloatList, WanVideoSigmaToStep]
