"""How the memory of a device is shared between a model's weights and one run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch

from ..wanvideo.attention.registry import AUTO, LAYOUT_MODES
from ..wanvideo.generation import RunSize
from ..wanvideo.transformer.memory import activation_bytes, row_chunks_for
from ..wanvideo.weights.device_speed import block_seconds, device_speed
from ..wanvideo.weights.plan import (
    HEADROOM_BYTES,
    MemoryPlan,
    MemoryRequest,
    Mode,
    NotEnoughMemoryError,
    plan_memory,
)
from ..wanvideo.weights.workspace import expanded_bytes
from .host import free_for, preferred_residency, reserved_bytes
from .memory_settings import MemorySettings
from .wan_model import WanVideoModel

log = logging.getLogger(__name__)

UNLIMITED = 2**62
QUANTISED_COPIES = 2.0  # token matrices that the sage kernels make of queries, keys and values
LOADING_BYTES = 1_000_000_000  # left free by a model that comes to its device before its run is known
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class RunPlan:
    """What :func:`plan_run` decided.

    Args:
        memory: which blocks stay on the device.
        embedders_stay: whether the embedders do, once text and timesteps are embedded.
    """

    memory: MemoryPlan
    embedders_stay: bool


def plan_run(model: WanVideoModel, size: RunSize, *, rope_function: str, companion_bytes: int = 0) -> RunPlan:
    """Where the blocks are in a run, and into how many chunks their rows are split.

    Other models are evicted as far as this run needs their room.

    Args:
        model: to run.
        size: of the run.
        rope_function: one of ``rope.ROPE_FUNCTIONS``.
        companion_bytes: of networks that are on the device with the model.

    Raises:
        NotEnoughMemoryError: it does not fit, whatever is streamed.
    """
    transformer = model.transformer
    config, dtype, tokens = transformer.config, transformer.compute_dtype, size.tokens
    is_whole = any(mode in LAYOUT_MODES for mode in model.attention.modes())

    def activation(row_chunks: int) -> int:
        # These modes take all queries at once: a whole block is the upper bound of what they need.
        chunks = 1 if is_whole else row_chunks
        return activation_bytes(config, tokens, dtype, row_chunks=chunks, rope_function=rope_function)

    device = model.managed.load_device
    sizes = model.residency.block_bytes
    speed = device_speed(torch.cuda.get_device_capability(device) if device.type == "cuda" else None)
    request = MemoryRequest(
        free_bytes=0,
        block_bytes=sizes,
        rest_bytes=model.residency.rest_bytes,
        activation=activation,
        row_chunks=row_chunks_for(tokens, rope_function=rope_function),
        tokens=tokens,
        embedder_bytes=model.residency.embedder_bytes,
        workspace_bytes=expanded_bytes((stage.block for stage in transformer.stages()), dtype)
        + _attention_bytes(model, tokens)
        + size.working_bytes
        + companion_bytes,
        compute_seconds=block_seconds(config, tokens, speed),
        copy_seconds=max(sizes, default=0) / speed.copy_rate,
        frames=size.frames,
        idle=size.idle_blocks,
    )
    return _plan(model, request)


def plan_loading(model: WanVideoModel) -> RunPlan:
    """Where the blocks are when the model comes to its device before any run is known."""
    return _plan(
        model,
        MemoryRequest(
            free_bytes=0,
            block_bytes=model.residency.block_bytes,
            rest_bytes=model.residency.rest_bytes,
            activation=lambda _row_chunks: LOADING_BYTES,
            row_chunks=1,
            tokens=1,
            embedder_bytes=model.residency.embedder_bytes,
        ),
    )


def _plan(model: WanVideoModel, request: MemoryRequest) -> RunPlan:
    settings, blocks = model.memory, len(model.transformer.blocks)
    side_blocks = len(request.used) - blocks
    if model.managed.load_device.type == "cpu":
        everything = replace(request, free_bytes=UNLIMITED, mode="resident", embedders_stay=True)
        return RunPlan(plan_memory(everything), embedders_stay=True)
    request = replace(
        request,
        slots=settings.block_swap.slots,
        minimum_streamed=settings.min_streamed(blocks, side_blocks),
        headroom_bytes=max(HEADROOM_BYTES, reserved_bytes()),
    )
    request = replace(request, free_bytes=free_for(model.managed, _wanted_bytes(request)))
    may_stay = not (settings.block_swap.offload_txt_emb or settings.block_swap.offload_img_emb)
    return first_that_fits(request, _modes(settings, blocks, side_blocks), embedders_may_stay=may_stay)


def first_that_fits(request: MemoryRequest, modes: tuple[Mode, ...], *, embedders_may_stay: bool) -> RunPlan:
    """The plan of the first mode that fits; the embedders stay if no block makes room for them.

    Raises:
        NotEnoughMemoryError: nothing fits in the last mode.
    """
    for mode in modes[:-1]:
        try:
            return _plan_in(replace(request, mode=mode), embedders_may_stay)
        except NotEnoughMemoryError as error:
            log.debug("memory mode %s: %s", mode, error)
    return _plan_in(replace(request, mode=modes[-1]), embedders_may_stay)


def _plan_in(request: MemoryRequest, embedders_may_stay: bool) -> RunPlan:
    plan = plan_memory(request)
    is_tight = plan.row_chunks > request.row_chunks or plan.slots < min(request.slots, len(plan.streamed))
    working = plan.activation_bytes + request.workspace_bytes
    staying_adds = min(request.embedder_bytes, working)  # the plan has room for the larger of the two
    fits = plan.device_bytes + staying_adds + request.headroom_bytes <= request.free_bytes
    if is_tight or not fits or not embedders_may_stay:
        return RunPlan(plan, embedders_stay=False)
    same = replace(request, embedders_stay=True, minimum_streamed=len(plan.streamed))
    return RunPlan(plan_memory(same), embedders_stay=True)


def _wanted_bytes(request: MemoryRequest) -> int:
    """What a run would use if nothing beyond what was asked for were streamed."""
    plenty = replace(request, free_bytes=UNLIMITED, embedders_stay=True)
    return plan_memory(plenty).device_bytes + request.headroom_bytes


def _modes(settings: MemorySettings, blocks: int, side_blocks: int) -> tuple[Mode, ...]:
    """What the user chose, else what ComfyUI was started for; --highvram still streams what does not fit."""
    if settings.mode != "auto":
        return (settings.mode,)
    preferred = preferred_residency()
    if preferred == "resident" and not settings.min_streamed(blocks, side_blocks):
        return ("resident", "auto")
    return ("stream",) if preferred == "stream" else ("auto",)


def _attention_bytes(model: WanVideoModel, tokens: int) -> int:
    """Memory of the attention library itself."""
    config = model.transformer.config
    log_sums = tokens * config.heads * FLOAT32_BYTES
    if not any("sage" in mode or mode == AUTO for mode in model.attention.modes()):
        return log_sums
    row = config.dim * model.transformer.compute_dtype.itemsize
    return log_sums + int(QUANTISED_COPIES * tokens * row)
