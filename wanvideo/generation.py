"""One sampling run, from a size, a text and a schedule to a latent.

The engine's door: latents come in and go out un-normalised (the space of the VAE), the model sees them
normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .conditioning.conditioning import Conditioning, FamilyInput
from .conditioning.geometry import VideoGeometry
from .conditioning.text import TextEmbeds
from .denoiser import Denoiser
from .errors import InputError
from .sampling.edits import InpaintMask, LatentEdit
from .sampling.filters import Filter
from .sampling.guidance import NEGATIVE, POSITIVE, Guidance, cfg_guidance
from .sampling.noise import StartLatent, start_latent
from .sampling.plan import SamplingPlan, SolverHistoryMode
from .sampling.sampler import Observer, SampleResult, sample
from .sampling.schedules import Schedule
from .sampling.solver import SolverHistory
from .transformer.config import WanConfig
from .transformer.context import RunOptions, RunState
from .transformer.model import WanTransformer
from .vae.latent_space import LatentSpace, latent_space_for

WIDE_LATENT_CHANNELS = 48  # the Wan 2.2 VAE of the 5B model, 16 pixels per latent


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
        steps: first step, and one past the last.
        cfg: guidance scale, one or a list per step.
        seed: of the noise.
        initial: what to start from instead of pure noise.
        inputs: family inputs by name.
        filters: guidance filters.
        solver_history: see ``sampling.plan.SamplingPlan``.
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


@dataclass(frozen=True)
class Generated:
    """Result of a run; both latents un-normalised, float32, on the CPU.

    Args:
        latent: where the run ended; noisy when it stopped early.
        denoised: the clean estimate of the last step.
        generator_state: of the noise generator, to go on from here.
        solver_state: of the solver, to go on from here; only with ``solver_history`` "continue".
    """

    latent: Tensor
    denoised: Tensor
    generator_state: Tensor
    solver_state: SolverHistory | None


def spatial_stride(config: WanConfig) -> int:
    """Pixels per latent of the VAE that goes with a transformer."""
    return 16 if config.out_channels == WIDE_LATENT_CHANNELS else 8


def plan_generation(request: GenerationRequest) -> SamplingPlan:
    """The sampling plan of a request; touches no weight.

    Raises:
        InputError: guidance without a negative prompt, or values the plan refuses.
    """
    first, end = request.steps
    return SamplingPlan(
        schedule=request.schedule,
        first_step=first,
        end_step=end,
        guidance=_guidance(request),
        seed=request.seed,
        filters=request.filters,
        solver_history=request.solver_history,
    )


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
    config = model.config
    _check_families(model, request)
    _check_channels(config, request)
    _check_text(config, request.text)
    plan = plan_generation(request)
    space = latent_space_for(config.out_channels)
    start = _start(request, plan, space)
    describe(plan)
    run, passes = RunState(options), _passes(request)
    with torch.inference_mode():
        model.prepare_run(run, plan.timesteps, [passes[name] for name in _used_passes(plan.guidance)])
        result = sample(
            Denoiser(model, passes, run, total_steps=plan.count),
            start.x.to(device),
            plan,
            generator=start.generator,
            observer=observer,
            edits=_edits(request, start, space),
            solver_state=request.initial.solver_state if request.initial else None,
        )
        return _generated(result, space)


def _generated(result: SampleResult, space: LatentSpace) -> Generated:
    return Generated(
        latent=space.denormalise(result.latent.float()).cpu(),
        denoised=space.denormalise(result.denoised.float()).cpu(),
        generator_state=result.generator_state,
        solver_state=result.solver_state.to("cpu") if result.solver_state else None,
    )


def _guidance(request: GenerationRequest) -> Guidance:
    guidance = cfg_guidance(request.cfg, request.steps[1] - request.steps[0])
    uses_negative = any(NEGATIVE in guidance.active(step) for step in range(guidance.steps))
    text = request.text
    if text is not None and text.prompt_embeds and not text.negative_prompt_embeds and uses_negative:
        raise InputError(
            "text_embeds",
            "no negative prompt was encoded, and cfg is not 1; connect a negative prompt "
            "(an empty one will do) or set cfg to 1",
        )
    prompts = _prompts(text)
    return guidance.sharing_equal(lambda name: tuple(id(prompt) for prompt in prompts[name]))


def _prompts(text: TextEmbeds | None) -> dict[str, tuple[Tensor, ...]]:
    if text is None:
        return {POSITIVE: (), NEGATIVE: ()}
    return {POSITIVE: tuple(text.prompt_embeds), NEGATIVE: tuple(text.negative_prompt_embeds)}


def _passes(request: GenerationRequest) -> dict[str, Conditioning]:
    return {
        name: Conditioning(request.geometry, text=prompts, inputs=request.inputs)
        for name, prompts in _prompts(request.text).items()
    }


def _used_passes(guidance: Guidance) -> list[str]:
    return sorted({name for step in range(guidance.steps) for name in guidance.active(step)})


def _start(request: GenerationRequest, plan: SamplingPlan, space: LatentSpace) -> StartLatent:
    initial = request.initial
    if initial is None:
        return start_latent(request.geometry.latent_shape(space.channels), request.seed)
    samples = space.normalise(initial.latent.float().cpu())
    shape = request.geometry.latent_shape(space.channels, batch=samples.shape[0])
    return start_latent(
        shape,
        request.seed,
        samples=samples,
        generator_state=initial.generator_state,
        noise_to=plan.timesteps[0] if initial.add_noise else None,
    )


def _edits(request: GenerationRequest, start: StartLatent, space: LatentSpace) -> list[LatentEdit]:
    initial = request.initial
    if initial is None or initial.mask is None:
        return []
    original = space.normalise(initial.latent.float().cpu())
    return [InpaintMask(initial.mask, original, start.noise)]


def _check_families(model: WanTransformer, request: GenerationRequest) -> None:
    unknown = sorted(set(request.inputs) - model.families())
    if unknown:
        raise InputError(
            "image_embeds",
            f"they carry an input for {', '.join(unknown)}, and this model has no weights for it; "
            "load a model (or an extra model) of that family, or take the node out",
        )


def _check_channels(config: WanConfig, request: GenerationRequest) -> None:
    if config.in_channels != config.out_channels and not request.inputs:
        missing = config.in_channels - config.out_channels
        raise InputError(
            "image_embeds",
            f"this model takes {config.in_channels} channels, {missing} of them from an image or control "
            "video (image to video), and the image_embeds carry none; use WanVideo ImageToVideo Encode, "
            "or load a text-to-video model",
        )


def _check_text(config: WanConfig, text: TextEmbeds | None) -> None:
    if text is None:
        return
    for rows in (*text.prompt_embeds, *text.negative_prompt_embeds):
        if rows.ndim != 2 or rows.shape[1] != config.text_width:
            raise InputError(
                "text_embeds",
                f"the text rows have width {rows.shape[-1]}, this model expects {config.text_width}; "
                "encode the prompt with the text encoder that belongs to the model (UMT5-XXL)",
            )
