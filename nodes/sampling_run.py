"""What a sampler node does with its inputs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ..wanvideo.attention.run import RunAttention, prepare
from ..wanvideo.conditioning.geometry import VideoGeometry, spatial_stride_of
from ..wanvideo.conditioning.text import TextEmbeds
from ..wanvideo.errors import InputError, NotYetError
from ..wanvideo.generation import (
    Generated,
    GenerationRequest,
    InitialVideo,
    check_request,
    generate,
    run_size,
)
from ..wanvideo.sampling.plan import SamplingPlan, SolverHistoryMode
from ..wanvideo.sampling.schedules import build_schedule
from ..wanvideo.sampling.solver import AnySolver
from ..wanvideo.transformer.context import RunOptions
from ..wanvideo.transformer.rope import RopeOptions
from .attention import HOST_BACKENDS
from .experimental import ExperimentalOptions
from .host import check_interrupt, io, rows_of_conditioning, say
from .model_run import PlannedRun, chosen_program
from .run_plan import plan_run
from .run_watcher import Watcher
from .scheduler import RopeSelection, SelectedSchedule, sigma_values
from .sockets import DECODE_PLAN, AttachedInput, ImageEmbeds
from .wan_model import WanVideoModel

log = logging.getLogger(__name__)

ATTACHED_INPUTS = ("uni3c_embeds",)
LATER_INPUTS = {
    "feta_args": "Enhance-A-Video",
    "context_options": "context windows",
    "cache_args": "step caching",
    "slg_args": "skip-layer guidance",
    "loop_args": "looping",
    "unianimate_poses": "UniAnimate",
    "fantasytalking_embeds": "FantasyTalking",
    "multitalk_embeds": "MultiTalk",
    "freeinit_args": "FreeInit",
}


@dataclass(frozen=True)
class SamplerInputs:
    """Inputs of the sampler nodes, by input name; see the nodes for their meaning.

    ``solver`` is no input: a node that stands for another method than the schedule's sets it.
    """

    model: WanVideoModel
    image_embeds: ImageEmbeds
    cfg: float | Sequence[float]
    seed: int
    force_offload: bool
    scheduler: str | SelectedSchedule
    steps: int = 30
    shift: float = 5.0
    riflex_freq_index: int = 0
    text_embeds: TextEmbeds | list[Any] | None = None
    negative: list[Any] | None = None
    samples: dict[str, Any] | None = None
    denoise_strength: float = 1.0
    batched_cfg: bool = False
    rope_function: str | RopeSelection = "comfy"
    experimental_args: ExperimentalOptions | None = None
    sigmas: Tensor | None = None
    start_step: float = 0
    end_step: float = -1
    add_noise_to_samples: bool = False
    solver_history: SolverHistoryMode | Literal[""] = "restart"
    solver: AnySolver | None = None
    flowedit_args: object = None
    feta_args: object = None
    context_options: object = None
    cache_args: object = None
    slg_args: object = None
    loop_args: object = None
    unianimate_poses: object = None
    fantasytalking_embeds: object = None
    uni3c_embeds: object = None
    multitalk_embeds: object = None
    freeinit_args: object = None


def run_sampler(inputs: SamplerInputs) -> io.NodeOutput:
    """Check the inputs, load the model, sample."""
    _refuse_later_inputs(inputs)
    model = inputs.model
    config = model.transformer.config
    attached = _attached(inputs)
    request = _request(
        inputs, _geometry(inputs.image_embeds, spatial_stride_of(config.out_channels)), attached
    )
    check_request(model.transformer, request)
    attention = prepare(
        model.attention,
        model.managed.load_device,
        model.transformer.compute_dtype,
        host_backends=HOST_BACKENDS,
    )
    rope = _rope(inputs, request.geometry)
    companions = [companion for each in attached for companion in each.companions]
    plan = plan_run(
        model,
        run_size(model.transformer, request),
        rope_function=rope.function,
        companion_bytes=sum(companion.model_size() for companion in companions),
    )
    run = PlannedRun(model, plan, force_offload=inputs.force_offload, companions=companions)
    program = chosen_program(model)
    options = RunOptions(
        attention=attention.attention,
        attention_for=attention.attention_for,
        side_attention_for=attention.side_attention_for,
        rope=rope,
        rms_norm=model.rms_norm,
        row_chunks=plan.memory.row_chunks,
        program=program,
        check=check_interrupt,
        walk=run.walk,
        on_prepared=run.on_prepared,
    )
    watcher = Watcher(request, config.out_channels)

    def sample() -> Generated:
        return generate(
            model.transformer,
            request,
            options,
            device=model.managed.load_device,
            observer=watcher,
            describe=lambda plan: _describe(model, request, plan, attention),
        )

    generated = run.compute(sample, program.scope())
    watcher.finish()
    return io.NodeOutput(_latent(generated), _decodable(generated.denoised, generated))


def _refuse_later_inputs(inputs: SamplerInputs) -> None:
    if inputs.flowedit_args is not None:
        raise InputError("flowedit_args", "FlowEdit is no longer supported; disconnect this input")
    for name, what in LATER_INPUTS.items():
        if getattr(inputs, name) is not None:
            raise NotYetError(name, what, "disconnect this input")


def _attached(inputs: SamplerInputs) -> list[AttachedInput]:
    values = [getattr(inputs, name) for name in ATTACHED_INPUTS]
    for name, value in zip(ATTACHED_INPUTS, values, strict=True):
        if value is not None and not isinstance(value, AttachedInput):
            raise InputError(name, f"got {type(value).__name__}; use the node of this pack")
    return [value for value in values if value is not None]


def _geometry(embeds: ImageEmbeds, stride: int) -> VideoGeometry:
    geometry, changes = embeds.geometry.for_stride(stride)
    if changes:
        log.warning("WanVideo Sampler: %s", "; ".join(changes))
        say("; ".join(changes))
    return geometry


def _request(
    inputs: SamplerInputs, geometry: VideoGeometry, attached: Sequence[AttachedInput]
) -> GenerationRequest:
    selected = _select(inputs)
    if inputs.batched_cfg:
        log.info("batched_cfg: the passes run one after the other; the result is the same")
    return GenerationRequest(
        geometry=geometry,
        text=_text(inputs.text_embeds, inputs.negative),
        schedule=selected.schedule,
        steps=(selected.first_step, selected.end_step),
        cfg=inputs.cfg,
        seed=inputs.seed,
        initial=_initial(inputs),
        inputs={**inputs.image_embeds.inputs, **{each.name: each.value for each in attached}},
        filters=inputs.experimental_args.filters if inputs.experimental_args else (),
        solver_history=inputs.solver_history or "restart",
        solver=inputs.solver,
    )


def _select(inputs: SamplerInputs) -> SelectedSchedule:
    if isinstance(inputs.scheduler, SelectedSchedule):
        return inputs.scheduler
    schedule = build_schedule(
        inputs.scheduler,
        inputs.steps,
        inputs.shift,
        sigmas=sigma_values(inputs.sigmas),
        denoise_strength=inputs.denoise_strength,
        model_dim=inputs.model.transformer.config.dim,
    )
    first, end = schedule.select_denoise(inputs.denoise_strength, inputs.start_step, inputs.end_step)
    return SelectedSchedule(schedule, first, end)


def _text(value: TextEmbeds | list[Any] | None, negative: list[Any] | None) -> TextEmbeds | None:
    if isinstance(value, TextEmbeds):
        if negative is not None:
            raise InputError("negative", "only used when text_embeds is a CONDITIONING; disconnect it")
        if value.is_echoshot:
            raise NotYetError("text_embeds", "numbered shots ([1] ... [2] ...)", "write one prompt")
        return value
    if value is None:
        return None
    rows = rows_of_conditioning(value, input_name="text_embeds")
    negative_rows = () if negative is None else (rows_of_conditioning(negative, input_name="negative"),)
    return TextEmbeds((rows,), negative_rows)


def _initial(inputs: SamplerInputs) -> InitialVideo | None:
    samples = inputs.samples
    if samples is None:
        if inputs.denoise_strength < 1.0:
            raise InputError(
                "denoise_strength",
                f"{inputs.denoise_strength} needs samples to denoise; connect samples or set it to 1",
            )
        return None
    return InitialVideo(
        latent=samples["samples"],
        add_noise=inputs.add_noise_to_samples or inputs.denoise_strength < 1.0,
        mask=samples.get("noise_mask"),
        generator_state=samples.get("generator_state"),
        solver_state=samples.get("solver_state"),
    )


def _rope(inputs: SamplerInputs, geometry: VideoGeometry) -> RopeOptions:
    selection = inputs.rope_function
    if not isinstance(selection, RopeSelection):
        selection = RopeSelection(selection, (1.0, 1.0, 1.0))
    return RopeOptions(
        function=selection.function,
        riflex_index=inputs.riflex_freq_index,
        riflex_frames=geometry.latent_frames,
        ntk_scale=selection.ntk_scale,
    )


def _describe(
    model: WanVideoModel, request: GenerationRequest, plan: SamplingPlan, attention: RunAttention
) -> None:
    size = request.geometry
    log.info(
        "%s: %dx%d, %d frames, %d tokens; %s; attention %s",
        model.name,
        size.width,
        size.height,
        size.frames,
        size.tokens,
        plan,
        attention,
    )


def _latent(generated: Generated) -> dict[str, Any]:
    latent = _decodable(generated.latent, generated)
    latent["generator_state"] = generated.generator_state
    if generated.solver_state is not None:
        latent["solver_state"] = generated.solver_state
    return latent


def _decodable(samples: Tensor, generated: Generated) -> dict[str, Any]:
    """A LATENT that says which of its frames are not plainly part of the video."""
    plan = generated.decode
    return {"samples": samples} if plan.is_plain else {"samples": samples, DECODE_PLAN: plan}
