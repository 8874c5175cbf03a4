"""Schedules as nodes, and options of the sampler that are chosen outside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..wanvideo.errors import InputError
from ..wanvideo.sampling.schedules import SCHEDULER_NAMES, Schedule, build_schedule
from ..wanvideo.transformer.rope import ROPE_FUNCTIONS
from . import sockets
from .base import CATEGORY, WanNode
from .host import ComboOutput, io, say


@dataclass(frozen=True)
class SelectedSchedule:
    """Value of a scheduler socket: a schedule and the steps one sampler takes of it.

    Args:
        schedule: the whole.
        first_step: index of the first step.
        end_step: one past the last.
    """

    schedule: Schedule
    first_step: int
    end_step: int


@dataclass(frozen=True)
class RopeSelection:
    """Value of a RoPE function socket.

    Args:
        function: one of ``ROPE_FUNCTIONS``.
        ntk_scale: factors on theta for frame, row and column.
    """

    function: str
    ntk_scale: tuple[float, float, float]


def scheduler_input() -> io.Combo.Input:
    """The list of schedulers."""
    return io.Combo.Input(
        "scheduler",
        options=list(SCHEDULER_NAMES),
        default="unipc",
        tooltip="Spacing of the noise levels and the method that goes with it.",
    )


def rope_function_input(*, optional: bool) -> io.Combo.Input:
    """The list of RoPE functions."""
    return io.Combo.Input(
        "rope_function",
        options=list(ROPE_FUNCTIONS),
        default="comfy",
        optional=optional,
        tooltip="Same result in all three. comfy rotates real numbers and can be compiled; comfy_chunked "
        "does it in parts for less memory; default rotates complex numbers in float64.",
    )


def _factor_input(name: str, axis: str) -> io.Float.Input:
    tooltip = f"Factor on theta for {axis}; 1 changes nothing."
    return io.Float.Input(name, default=1.0, min=0.0, max=100.0, step=0.01, tooltip=tooltip)


def _schedule_inputs() -> list[io.Input]:
    return [
        scheduler_input(),
        io.Int.Input("steps", default=30, min=1, tooltip="Steps of the whole schedule."),
        io.Float.Input("shift", default=5.0, min=0.0, max=1000.0, step=0.01),
        io.Int.Input("start_step", default=0, min=0, tooltip="First step the sampler takes."),
        io.Int.Input(
            "end_step", default=-1, min=-1, tooltip="The sampler stops before this step; -1: the end."
        ),
        io.Sigmas.Input("sigmas", optional=True, tooltip="Noise levels to use as they are."),
        io.Boolean.Input(
            "enhance_hf",
            default=False,
            optional=True,
            tooltip="More steps at low noise, where fine detail is made.",
        ),
    ]


def sigma_values(sigmas: Tensor | Sequence[float] | None) -> list[float] | None:
    """A SIGMAS input as numbers."""
    if sigmas is None:
        return None
    return torch.as_tensor(sigmas, dtype=torch.float32).flatten().tolist()


def _select(inputs: dict[str, Any]) -> SelectedSchedule:
    schedule = build_schedule(
        inputs["scheduler"],
        inputs["steps"],
        inputs["shift"],
        sigmas=sigma_values(inputs.get("sigmas")),
        enhance_hf=bool(inputs.get("enhance_hf")),
    )
    first, end = schedule.select(inputs["start_step"], inputs["end_step"])
    say("sigmas " + " ".join(f"{sigma:.3f}" for sigma in schedule.sigmas[first : end + 1]))
    return SelectedSchedule(schedule, first, end)


class WanVideoScheduler(WanNode):
    """A schedule, and its numbers for other nodes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoScheduler",
            display_name="WanVideo Scheduler",
            category=CATEGORY,
            description="Noise levels of a run; connect the scheduler output to the sampler.",
            inputs=_schedule_inputs(),
            outputs=[
                io.Sigmas.Output(display_name="sigmas"),
                io.Int.Output(display_name="steps"),
                io.Float.Output(display_name="shift"),
                ComboOutput(display_name="scheduler", options=list(SCHEDULER_NAMES)),
                io.Int.Output(display_name="start_step"),
                io.Int.Output(display_name="end_step"),
            ],
            is_experimental=True,
        )

    @classmethod
    def run(cls, **inputs: Any) -> io.NodeOutput:
        """Build and select."""
        selected = _select(inputs)
        return io.NodeOutput(
            torch.tensor(selected.schedule.sigmas),
            inputs["steps"],
            inputs["shift"],
            selected,
            inputs["start_step"],
            inputs["end_step"],
        )


class WanVideoSchedulerv2(WanNode):
    """A schedule for WanVideo Sampler v2."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSchedulerv2",
            display_name="WanVideo Scheduler v2",
            category=CATEGORY,
            description="Noise levels of a run.",
            inputs=_schedule_inputs(),
            outputs=[sockets.SchedulerSocket.Output(display_name="scheduler")],
            is_experimental=True,
        )

    @classmethod
    def run(cls, **inputs: Any) -> io.NodeOutput:
        """Build and select."""
        return io.NodeOutput(_select(inputs))


class WanVideoRoPEFunction(WanNode):
    """How positions become rotations."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoRoPEFunction",
            display_name="WanVideo RoPE Function",
            category=CATEGORY,
            description="RoPE function with NTK factors for sizes beyond what the model was trained on.",
            inputs=[
                rope_function_input(optional=False),
                _factor_input("ntk_scale_f", "frames"),
                _factor_input("ntk_scale_h", "rows"),
                _factor_input("ntk_scale_w", "columns"),
            ],
            outputs=[ComboOutput(display_name="rope_function", options=list(ROPE_FUNCTIONS))],
            is_experimental=True,
        )

    @classmethod
    def run(
        cls, rope_function: str, ntk_scale_f: float, ntk_scale_h: float, ntk_scale_w: float
    ) -> io.NodeOutput:
        """Bundle the choices."""
        for name, factor in (("f", ntk_scale_f), ("h", ntk_scale_h), ("w", ntk_scale_w)):
            if factor <= 0:
                raise InputError(f"ntk_scale_{name}", "0 leaves no rotation; use a value above 0 (1 is off)")
        return io.NodeOutput(RopeSelection(rope_function, (ntk_scale_f, ntk_scale_h, ntk_scale_w)))


NODES: list[type[WanNode]] = [WanVideoScheduler, WanVideoSchedulerv2, WanVideoRoPEFunction]
