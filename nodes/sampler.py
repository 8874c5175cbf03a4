"""The sampler nodes: the same run behind four interfaces."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from . import sockets
from .base import CATEGORY, WanNode
from .host import io
from .sampling_run import SamplerInputs, run_sampler
from .scheduler import rope_function_input, scheduler_input

SOLVER_HISTORIES = ("restart", "continue")
SAMPLER_OUTPUTS = (
    ("samples", "where the run ended"),
    ("denoised_samples", "clean estimate of the last step"),
)


def _outputs() -> list[io.Output]:
    return [io.Latent.Output(display_name=name, tooltip=text) for name, text in SAMPLER_OUTPUTS]


def _seed_input() -> io.Int.Input:
    return io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True)


def _cfg_input() -> io.Float.Input:
    return io.Float.Input(
        "cfg",
        default=6.0,
        min=0.0,
        max=30.0,
        step=0.01,
        tooltip="Guidance scale; a list gives one per step. 1 runs the model once per step.",
    )


def _force_offload_input() -> io.Boolean.Input:
    return io.Boolean.Input(
        "force_offload", default=True, tooltip="Take the model off the GPU when the run is done."
    )


def _riflex_input(*, optional: bool) -> io.Int.Input:
    return io.Int.Input(
        "riflex_freq_index",
        default=0,
        min=0,
        max=1000,
        step=1,
        optional=optional,
        tooltip="RIFLEx: slow this temporal frequency so that long videos do not repeat; 0 is off, 6 usual.",
    )


def _text_inputs() -> list[io.Input]:
    return [
        io.MultiType.Input(
            "text_embeds",
            types=[sockets.TextEmbedsSocket, io.Conditioning],
            optional=True,
            tooltip="Encoded prompts; a CONDITIONING counts as the positive prompt.",
        ),
        io.Latent.Input("samples", optional=True, tooltip="A latent to start from or to go on with."),
    ]


def _add_noise_input() -> io.Boolean.Input:
    return io.Boolean.Input(
        "add_noise_to_samples",
        default=False,
        optional=True,
        tooltip="Noise samples to the first step's level; needed when they are a clean video.",
    )


def _added_inputs() -> list[io.Input]:
    return [
        io.Conditioning.Input(
            "negative",
            optional=True,
            advanced=True,
            tooltip="Negative prompt, if text_embeds is CONDITIONING.",
        ),
        io.Combo.Input(
            "solver_history",
            options=list(SOLVER_HISTORIES),
            default=SOLVER_HISTORIES[0],
            optional=True,
            advanced=True,
            tooltip="restart: each sampler starts its method anew. continue, in both samplers of a chain: a "
            "multistep method goes on where the first stopped, so that the chain equals one run.",
        ),
    ]


class _SamplerNode(WanNode):
    """A node with the inputs :func:`_added_inputs` appends."""

    @classmethod
    def validate_inputs(cls, solver_history: object = "restart") -> bool | str:
        """Accept the empty value that graphs of the predecessor have after their last widget."""
        if solver_history in (*SOLVER_HISTORIES, "", None) or not isinstance(solver_history, str):
            return True
        return f"solver_history: {solver_history!r} is not one of {', '.join(SOLVER_HISTORIES)}"


def _sampler_inputs() -> list[io.Input]:
    return [
        sockets.Model.Input("model"),
        sockets.ImageEmbedsSocket.Input("image_embeds"),
        io.Int.Input("steps", default=30, min=1),
        _cfg_input(),
        io.Float.Input("shift", default=5.0, min=0.0, max=1000.0, step=0.01),
        _seed_input(),
        _force_offload_input(),
        scheduler_input(),
        _riflex_input(optional=False),
        *_text_inputs(),
        io.Float.Input(
            "denoise_strength",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="Below 1: noise samples and redo only this part of the steps.",
        ),
        sockets.EnhanceVideo.Input("feta_args", optional=True),
        sockets.ContextWindows.Input("context_options", optional=True),
        sockets.Cache.Input("cache_args", optional=True),
        sockets.FlowEdit.Input("flowedit_args", optional=True, tooltip="FlowEdit is no longer supported."),
        io.Boolean.Input(
            "batched_cfg",
            default=False,
            optional=True,
            tooltip="Accepted for old graphs; the passes run one after the other, with the same result.",
        ),
        sockets.SkipLayerGuidance.Input("slg_args", optional=True),
        rope_function_input(optional=True),
        sockets.Loop.Input("loop_args", optional=True),
        sockets.Experimental.Input("experimental_args", optional=True),
        io.Sigmas.Input("sigmas", optional=True, tooltip="Noise levels to use as they are."),
        sockets.UniAnimatePose.Input("unianimate_poses", optional=True),
        sockets.FantasyTalkingEmbeds.Input("fantasytalking_embeds", optional=True),
        sockets.Uni3cEmbeds.Input("uni3c_embeds", optional=True),
        sockets.MultiTalkEmbeds.Input("multitalk_embeds", optional=True),
        sockets.FreeInit.Input("freeinit_args", optional=True),
        io.Int.Input("start_step", default=0, min=0, max=10000, step=1, optional=True),
        io.Int.Input("end_step", default=-1, min=-1, max=10000, step=1, optional=True),
        _add_noise_input(),
        *_added_inputs(),
    ]


@dataclass(frozen=True)
class SamplerSettings:
    """Value of SAMPLER_ARGS: everything a sampler was given."""

    inputs: SamplerInputs


@dataclass(frozen=True)
class ExtraArguments:
    """Value of WANVIDSAMPLEREXTRAARGS: sampler inputs by name."""

    inputs: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class WanVideoSampler(_SamplerNode):
    """Turns noise, or a latent, into a video latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSampler",
            display_name="WanVideo Sampler",
            category=CATEGORY,
            description="Runs the model over the noise levels of a schedule.",
            inputs=_sampler_inputs(),
            outputs=_outputs(),
        )

    @classmethod
    def run(cls, **inputs: Any) -> io.NodeOutput:
        """Sample."""
        return run_sampler(SamplerInputs(**inputs))


class WanVideoSamplerSettings(_SamplerNode):
    """The inputs of the sampler as one value."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSamplerSettings",
            display_name="WanVideo Sampler Settings",
            category=CATEGORY,
            description="Collects the inputs of WanVideo Sampler From Settings, so that it stays small.",
            inputs=_sampler_inputs(),
            outputs=[sockets.SamplerSettings.Output(display_name="sampler_inputs")],
        )

    @classmethod
    def run(cls, **inputs: Any) -> io.NodeOutput:
        """Collect."""
        return io.NodeOutput(SamplerSettings(SamplerInputs(**inputs)))


class WanVideoSamplerFromSettings(WanNode):
    """Samples with the inputs another node collected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSamplerFromSettings",
            display_name="WanVideo Sampler From Settings",
            category=CATEGORY,
            description="The sampler without widgets: useful to watch the live preview.",
            inputs=[sockets.SamplerSettings.Input("sampler_inputs")],
            outputs=_outputs(),
        )

    @classmethod
    def run(cls, sampler_inputs: SamplerSettings) -> io.NodeOutput:
        """Sample."""
        return run_sampler(sampler_inputs.inputs)


class WanVideoSamplerv2(_SamplerNode):
    """The sampler with the schedule and the rare options as sockets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSamplerv2",
            display_name="WanVideo Sampler v2",
            category=CATEGORY,
            description="Runs the model over the noise levels of WanVideo Scheduler v2.",
            inputs=[
                sockets.Model.Input("model"),
                sockets.ImageEmbedsSocket.Input("image_embeds"),
                _cfg_input(),
                _seed_input(),
                _force_offload_input(),
                sockets.SchedulerSocket.Input("scheduler"),
                *_text_inputs(),
                _add_noise_input(),
                sockets.SamplerExtra.Input("extra_args", optional=True),
                *_added_inputs(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def run(cls, extra_args: ExtraArguments | None = None, **inputs: Any) -> io.NodeOutput:
        """Sample."""
        extra = dict(extra_args.inputs) if extra_args is not None else {}
        return run_sampler(SamplerInputs(**extra, **inputs))


class WanVideoSamplerExtraArgs(WanNode):
    """Rare options for WanVideo Sampler v2."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSamplerExtraArgs",
            display_name="WanVideoSampler v2 Extra Args",
            category=CATEGORY,
            description="Rare options for WanVideo Sampler v2.",
            inputs=[
                _riflex_input(optional=True),
                sockets.EnhanceVideo.Input("feta_args", optional=True),
                sockets.ContextWindows.Input("context_options", optional=True),
                sockets.Cache.Input("cache_args", optional=True),
                sockets.SkipLayerGuidance.Input("slg_args", optional=True),
                rope_function_input(optional=True),
                sockets.Loop.Input("loop_args", optional=True),
                sockets.Experimental.Input("experimental_args", optional=True),
                sockets.UniAnimatePose.Input("unianimate_poses", optional=True),
                sockets.FantasyTalkingEmbeds.Input("fantasytalking_embeds", optional=True),
                sockets.Uni3cEmbeds.Input("uni3c_embeds", optional=True),
                sockets.MultiTalkEmbeds.Input("multitalk_embeds", optional=True),
            ],
            outputs=[sockets.SamplerExtra.Output(display_name="extra_args")],
        )

    @classmethod
    def run(cls, **inputs: Any) -> io.NodeOutput:
        """Collect."""
        known = {f.name for f in fields(SamplerInputs)}
        assert known >= inputs.keys()
        return io.NodeOutput(ExtraArguments(MappingProxyType(dict(inputs))))


NODES: list[type[WanNode]] = [
    WanVideoSampler,
    WanVideoSamplerv2,
    WanVideoSamplerSettings,
    WanVideoSamplerFromSettings,
    WanVideoSamplerExtraArgs,
]
