"""One sampling run, from a size, a text and a schedule to a latent.

The engine's door: latents come in and go out un-normalised (the space of the VAE), the model sees them
normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import request_checks
from .conditioning.conditioning import Conditioning, FamilyInput
from .conditioning.decode_plan import DecodePlan, merged
from .conditioning.geometry import VideoGeometry
from .conditioning.run_setup import RunSetup
from .conditioning.text import TextEmbeds
from .denoiser import Denoiser
from .passes import conditions, guidance_of, levels_of, used_passes
from .sampling.edits import InpaintMask, LatentEdit
from .sampling.filters import Filter
from .sampling.guidance import Guidance, GuidanceLevel
from .sampling.noise import StartLatent, fit_samples, start_latent
from .sampling.plan import SamplingPlan, SolverHistoryMode
from .sampling.sampler import Observer, SampleResult, sample
from .sampling.schedules import Schedule
from .sampling.solver import AnySolver, SolverHistory
from .transformer.config import WanConfig
from .transformer.context import RunOptions, RunState
from .transformer.model import WanTransformer
from .vae.latent_space import LatentSpace, latent_space_for


@dataclass(frozen=True)
class InitialVideo:
    """A latent to start from.

    Args:
        latent: un-normalised ``[B, C, T, H, W]``.
        add_noise: noise it to the first step's level; without, it is taken as it is (a run that goes on).
        mask: 1 where to make anew, 0 to keep; see ``sampling.edits.fit_mask``. ``None`` is everywhere.
        generator_state: of the run that made it, so that noise goes on where that run stopped.
        solver_state: of the run that made it.
    """

    latent: Tensor
    add_noise: bool = False
    mask: Tensor | None = None
    generator_state: Tensor | None = None
    solver_state: SolverHistory | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate.

    Args:
        geometry: size of the video.
        text: encoded prompts, or ``None``.
        schedule: sigmas and timesteps of the whole run.
        steps: first step, and one past the last; see :attr:`run_steps`.
        cfg: guidance scale, one or a list per step.
        seed: of the noise.
        initial: what to start from instead of pure noise.
        inputs: family inputs by name.
        filters: guidance filters.
        solver_history: see ``sampling.plan.SamplingPlan``.
        solver: sampling method; ``None`` takes the one of the schedule.
    """

    geometry: VideoGeometry
    text: TextEmbeds | None
    schedule: Schedule
    steps: tuple[int, int]
    cfg: float | Sequence[float]
    seed: int
    initial: InitialVideo | None = None
    inputs: Mapping[str, FamilyInput] = field(default_factory=dict[str, FamilyInput])
    filters: tuple[Filter, ...] = ()
    solver_history: SolverHistoryMode = "restart"
    solver: AnySolver | None = None

    @property
    def run_steps(self) -> tuple[int, int]:
        """First step, and one past the last, of the run: an input may let it begin later."""
        first, end = self.steps
        return max((first, *(value.first_step for value in self.inputs.values()))), end


@dataclass(frozen=True)
class Generated:
    """Result of a run; both latents un-normalised, float32, on the CPU.

    Args:
        latent: where the run ended; noisy when it stopped early.
        denoised: the clean estimate of the last step.
        generator_state: of the noise generator, to go on from here.
        solver_state: of the solver, to go on from here; only with ``solver_history`` "continue".
        decode: what a decoder has to know of the latents.
    """

    latent: Tensor
    denoised: Tensor
    generator_state: Tensor
    solver_state: SolverHistory | None
    decode: DecodePlan = field(default=DecodePlan())


@dataclass(frozen=True)
class RunSize:
    """What a run demands of memory beside the weights.

    Args:
        tokens: length of the sequence.
        working_bytes: of inputs, during a forward.
        frames: pixel frames, those of leading and trailing latents included.
        idle_blocks: places in ``WanTransformer.stages`` of blocks that no pass runs.
    """

    tokens: int
    working_bytes: int
    frames: int
    idle_blocks: frozenset[int] = frozenset()


def check_request(model: WanTransformer, request: GenerationRequest) -> None:
    """Refuse a request that this model cannot serve; touches no weight.

    Raises:
        InputError: inputs that do not fit each other or the model.
    """
    request_checks.check_inputs(model, request.inputs)
    request_checks.check_channels(model, request.inputs)
    request_checks.check_text(model.config, request.text)
    setup = _setup(model.config, request, "cpu")
    for value in _accepted(model, request).values():
        value.check(setup)
    plan_generation(request)


def run_size(model: WanTransformer, request: GenerationRequest) -> RunSize:
    """What a request demands of memory beside the weights."""
    inputs = _accepted(model, request)
    setup = _setup(model.config, request, "cpu")
    geometry = request.geometry.with_latent_frames(setup.latent_frames)
    tokens = geometry.tokens + sum(value.extra_tokens(geometry) for value in inputs.values())
    value_bytes = model.compute_dtype.itemsize
    working = sum(value.working_bytes(tokens, model.config, value_bytes) for value in inputs.values())
    stages = enumerate(model.stages())
    idle = frozenset(place for place, stage in stages if stage.stream and stage.stream not in inputs)
    return RunSize(tokens, working, geometry.frames, idle)


def plan_generation(request: GenerationRequest) -> SamplingPlan:
    """The sampling plan of a request; touches no weight.

    Raises:
        InputError: guidance without a negative prompt, or values the plan refuses.
    """
    levels = _levels(request)
    passes = conditions(levels, geometry=request.geometry, text=request.text, inputs=request.inputs)
    return _plan(request, guidance_of(levels, passes))


def generate(
    model: WanTransformer,
    request: GenerationRequest,
    options: RunOptions,
    *,
    device: torch.device | str,
    observer: Observer | None = None,
    describe: Callable[[SamplingPlan], None] = lambda _plan: None,
) -> Generated:
    """Run a request.

    Args:
        model: on ``device``.
        request: what to generate.
        options: how to compute it.
        device: to work on.
        observer: told after every step.
        describe: given the plan before the first step.

    Raises:
        InputError: inputs that do not fit each other or the model.
        NotFiniteError: the latent became NaN or infinite.
    """
    check_request(model, request)
    request_checks.say_unused(model, request.inputs)
    with torch.inference_mode():
        setup = _setup(model.config, request, device)
        inputs = {name: value.prepared(setup) for name, value in _accepted(model, request).items()}
        geometry = request.geometry.with_latent_frames(setup.latent_frames)
        levels = _levels(request)
        passes = conditions(levels, geometry=geometry, text=request.text, inputs=inputs)
        plan = _plan(request, guidance_of(levels, passes))
        start = _start(request, plan, setup)
        describe(plan)
        run = RunState(options)
        used = [passes[name] for name in used_passes(plan.guidance)]
        model.prepare_run(run, _timesteps(plan, used), used)
        result = sample(
            Denoiser(model, passes, run, total_steps=plan.count),
            start.x.to(device),
            plan,
            generator=start.generator,
            observer=observer,
            edits=[*_inpainting(request, start, setup), *(e for v in inputs.values() for e in v.edits())],
            solver_state=request.initial.solver_state if request.initial else None,
        )
        kept = setup.latent_frames - max((value.cut_frames for value in inputs.values()), default=0)
        decode = merged((value.decode_plan() for value in inputs.values()), kept)
        return _generated(result, setup.space, decode)


def _accepted(model: WanTransformer, request: GenerationRequest) -> dict[str, FamilyInput]:
    """The inputs without those that are optional and that this model has no use for."""
    known = model.accepted_inputs()
    return {name: value for name, value in request.inputs.items() if name in known or not value.uses_model}


def _setup(config: WanConfig, request: GenerationRequest, device: torch.device | str) -> RunSetup:
    return RunSetup(
        config,
        request.geometry,
        latent_space_for(config.out_channels),
        leading_frames=max((value.leading_frames for value in request.inputs.values()), default=0),
        trailing_frames=max((value.trailing_frames for value in request.inputs.values()), default=0),
        device=torch.device(device),
        seed=request.seed,
    )


def _levels(request: GenerationRequest) -> tuple[GuidanceLevel, ...]:
    first, end = request.run_steps
    return levels_of(request.cfg, request.inputs, end - first)


def _plan(request: GenerationRequest, guidance: Guidance) -> SamplingPlan:
    first, end = request.run_steps
    request_checks.check_filters(request.filters, guidance)
    return SamplingPlan(
        schedule=request.schedule,
        first_step=first,
        end_step=end,
        guidance=guidance,
        solver=request.solver,
        seed=request.seed,
        filters=request.filters,
        solver_history=request.solver_history,
    )


def _timesteps(plan: SamplingPlan, passes: Sequence[Conditioning]) -> list[float]:
    """Every timestep a forward of the run can ask for."""
    return [each for t in plan.timesteps for one in passes for each in (t, *one.frame_timesteps(t))]


def _generated(result: SampleResult, space: LatentSpace, decode: DecodePlan) -> Generated:
    return Generated(
        latent=_kept(result.latent, space, decode),
        denoised=_kept(result.denoised, space, decode),
        generator_state=result.generator_state,
        solver_state=result.solver_state.to("cpu") if result.solver_state else None,
        decode=decode,
    )


def _kept(latent: Tensor, space: LatentSpace, decode: DecodePlan) -> Tensor:
    return space.denormalise(latent[:, :, : decode.latent_frames].float()).cpu()


def _start(request: GenerationRequest, plan: SamplingPlan, setup: RunSetup) -> StartLatent:
    geometry = request.geometry.with_latent_frames(setup.latent_frames)
    initial, space = request.initial, setup.space
    if initial is None:
        return start_latent(geometry.latent_shape(space.channels), request.seed)
    samples = space.normalise(initial.latent.float().cpu())
    shape = geometry.latent_shape(space.channels, batch=samples.shape[0])
    return start_latent(
        shape,
        request.seed,
        samples=samples,
        generator_state=initial.generator_state,
        noise_to=plan.timesteps[0] if initial.add_noise else None,
    )


def _inpainting(request: GenerationRequest, start: StartLatent, setup: RunSetup) -> list[LatentEdit]:
    initial = request.initial
    if initial is None or initial.mask is None:
        return []
    original = fit_samples(setup.space.normalise(initial.latent.float().cpu()), start.x.shape)
    return [InpaintMask(initial.mask, original, start.noise)]
