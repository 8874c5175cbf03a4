"""Experimental changes to guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..wanvideo.errors import InputError, NotYetError
from ..wanvideo.sampling.filters import (
    RAAG,
    CFGZeroStar,
    Filter,
    FreSca,
    TangentialCFG,
    TemporalScoreRescaling,
    ZeroInit,
)
from . import sockets
from .base import CATEGORY, WanNode
from .host import io


@dataclass(frozen=True)
class ExperimentalOptions:
    """Value of EXPERIMENTALARGS.

    Args:
        filters: guidance filters the user turned on.
    """

    filters: tuple[Filter, ...] = ()


class WanVideoExperimentalArgs(WanNode):
    """Switches for guidance methods of the literature."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoExperimentalArgs",
            display_name="WanVideo Experimental Args",
            category=CATEGORY,
            description="Guidance methods of the literature; each one is off by default.",
            inputs=[
                io.String.Input(
                    "video_attention_split_steps", default="", tooltip="Not available yet; leave empty."
                ),
                io.Boolean.Input(
                    "cfg_zero_star", default=False, tooltip="CFG-Zero*: fit the negative to the positive."
                ),
                io.Boolean.Input(
                    "use_zero_init",
                    default=False,
                    tooltip="With cfg_zero_star: the first steps move nothing (zero_star_steps).",
                ),
                io.Int.Input("zero_star_steps", default=0, min=0, tooltip="Last step use_zero_init acts on."),
                io.Boolean.Input(
                    "use_fresca", default=False, tooltip="FreSca: scale low and high frequencies of guidance."
                ),
                io.Float.Input("fresca_scale_low", default=1.0, min=0.0, max=10.0, step=0.01),
                io.Float.Input("fresca_scale_high", default=1.25, min=0.0, max=10.0, step=0.01),
                io.Int.Input("fresca_freq_cutoff", default=20, min=0, max=10000, step=1),
                io.Boolean.Input("use_tcfg", default=False, tooltip="Tangential damping of the negative."),
                io.Float.Input(
                    "raag_alpha",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="RAAG: lower cfg where positive and negative differ much; 0 is off, 1 usual.",
                ),
                io.Boolean.Input(
                    "bidirectional_sampling", default=False, tooltip="Not available yet; leave off."
                ),
                io.Boolean.Input(
                    "temporal_score_rescaling", default=False, tooltip="Rescale by the signal-to-noise ratio."
                ),
                io.Float.Input("tsr_k", default=0.95, min=0.0, max=100.0, step=0.01),
                io.Float.Input("tsr_sigma", default=1.0, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[sockets.Experimental.Output(display_name="exp_args")],
            is_experimental=True,
        )

    @classmethod
    def run(cls, **inputs: Any) -> io.NodeOutput:
        """Collect the filters."""
        if str(inputs["video_attention_split_steps"]).strip():
            raise NotYetError(
                "video_attention_split_steps", "splitting self-attention by prompt", "leave it empty"
            )
        if inputs["bidirectional_sampling"]:
            raise NotYetError("bidirectional_sampling", "bidirectional sampling", "turn it off")
        return io.NodeOutput(ExperimentalOptions(tuple(_filters(inputs))))


def _filters(inputs: dict[str, Any]) -> list[Filter]:
    filters: list[Filter] = []
    if inputs["cfg_zero_star"]:
        filters.append(CFGZeroStar())
        if inputs["use_zero_init"]:
            filters.append(ZeroInit(last_step=inputs["zero_star_steps"]))
    if inputs["use_tcfg"]:
        filters.append(TangentialCFG())
    if inputs["raag_alpha"]:
        filters.append(RAAG(alpha=inputs["raag_alpha"]))
    if inputs["use_fresca"]:
        filters.append(
            FreSca(
                low=inputs["fresca_scale_low"],
                high=inputs["fresca_scale_high"],
                cutoff=inputs["fresca_freq_cutoff"],
            )
        )
    if inputs["temporal_score_rescaling"]:
        if not inputs["tsr_k"]:
            raise InputError("tsr_k", "0 divides by zero; use a value above 0 (0.95 usual)")
        filters.append(TemporalScoreRescaling(k=inputs["tsr_k"], sigma=inputs["tsr_sigma"]))
    return filters


NODES: list[type[WanNode]] = [WanVideoExperimentalArgs]
