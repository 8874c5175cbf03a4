"""How a model shares a device with its activations: a pure function of what is free and what is needed.

Video diffusion computes long on each block, so the weights of the next block usually arrive in time; memory
is needed for the activations first. The plan keeps as many blocks resident as fit beside them and streams
the others through a small ring of slots, evenly spread, so that each copy has the time of several blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import WanError

log = logging.getLogger(__name__)

Mode = Literal["auto", "resident", "stream"]
GIGABYTE = 1e9
HEADROOM_BYTES = 800_000_000  # a full card spills to host memory on Windows and becomes ten times slower
FINER_CHUNKS = 4  # times as many row chunks at most when memory does not suffice otherwise
FRAMES_PER_LATENT = 4


@dataclass(frozen=True)
class Placement:
    """Which blocks stay on the device and which pass through the ring.

    Args:
        blocks: number of blocks of the model.
        streamed: indices of the blocks that are streamed, ascending.
        slots: blocks the ring holds; 0 when nothing is streamed.
        idle: indices of the blocks that no pass runs; they are not on the device at all.
    """

    blocks: int
    streamed: tuple[int, ...] = ()
    slots: int = 0
    idle: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if list(self.streamed) != sorted(set(self.streamed) & (set(range(self.blocks)) - self.idle)):
            raise ValueError(f"streamed blocks {self.streamed} of a model of {self.blocks} blocks")
        if self.streamed and self.slots < 1:
            raise ValueError("streaming needs at least one slot")

    @property
    def resident(self) -> frozenset[int]:
        """Indices of the blocks that stay on the device."""
        return frozenset(range(self.blocks)) - set(self.streamed) - self.idle


@dataclass(frozen=True)
class MemoryRequest:
    """What a run needs and what there is. All sizes in bytes, all times in seconds.

    Args:
        free_bytes: on the device when everything that can be evicted is.
        block_bytes: of each block's weights.
        rest_bytes: of the weights outside the blocks, without the embedders.
        activation: peak bytes of one pass for a number of row chunks.
        row_chunks: into which the rows of a block are split; a function of the token count.
        tokens: of the sequence.
        embedder_bytes: of the weights used once per run (text, time and image embeddings).
        embedders_stay: whether they stay on the device while the blocks compute.
        branches: passes computed together.
        mode: "auto", "resident" (nothing is streamed) or "stream" (every block is).
        idle: blocks that no pass of the run uses (a side network without input).
        minimum_streamed: blocks to stream at least; more than there are means all.
        lora_bytes_per_block: that travel with each block.
        workspace_bytes: of attention, decoded weights and other temporaries beside the activations.
        headroom_bytes: to leave free.
        slots: of the ring.
        compute_seconds: one block computes.
        copy_seconds: one block's copy takes.
        frames: of the video, for the advice when it does not fit; 0 when unknown.
    """

    free_bytes: int
    block_bytes: tuple[int, ...]
    rest_bytes: int
    activation: Callable[[int], int]
    row_chunks: int
    tokens: int
    embedder_bytes: int = 0
    embedders_stay: bool = False
    branches: int = 1
    mode: Mode = "auto"
    idle: frozenset[int] = frozenset()
    minimum_streamed: int = 0
    lora_bytes_per_block: int = 0
    workspace_bytes: int = 0
    headroom_bytes: int = HEADROOM_BYTES
    slots: int = 2
    compute_seconds: float = 0.0
    copy_seconds: float = 0.0
    frames: int = 0

    def __post_init__(self) -> None:
        if min(self.row_chunks, self.branches, self.slots, self.tokens) < 1:
            raise ValueError("row_chunks, branches, slots and tokens are at least 1")

    @property
    def used(self) -> tuple[int, ...]:
        """Indices of the blocks the run uses."""
        return tuple(index for index in range(len(self.block_bytes)) if index not in self.idle)


@dataclass(frozen=True)
class MemoryPlan(Placement):
    """A placement with what it costs; ``str(plan)`` is the line for the log.

    Args:
        tokens: of the sequence.
        row_chunks: into which the rows of a block are split.
        activation_bytes: peak of the activations of all branches.
        weight_bytes: of the weights on the device: outside the blocks, resident blocks, slots.
        device_bytes: peak of everything on the device, headroom not included.
        stall_seconds: per forward, in which the device is expected to wait for weights.
    """

    tokens: int = 0
    row_chunks: int = 1
    activation_bytes: int = 0
    weight_bytes: int = 0
    device_bytes: int = 0
    stall_seconds: float = 0.0

    def __str__(self) -> str:
        chunks = f" in {self.row_chunks} row chunks" if self.row_chunks > 1 else ""
        slots = f" ({self.slots} slot{'s' if self.slots > 1 else ''})" if self.streamed else ""
        idle = f", {len(self.idle)} not used" if self.idle else ""
        stall = f"{self.stall_seconds * 1000:.0f} ms"
        return (
            f"{self.tokens:,} tokens, activations {_gigabytes(self.activation_bytes)}{chunks}, "
            f"{len(self.resident)} blocks resident, {len(self.streamed)} streamed{slots}{idle}, "
            f"{_gigabytes(self.device_bytes)} on the device, expected stall {stall}"
        )


class NotEnoughMemoryError(WanError):
    """A run does not fit on the device, whatever is streamed.

    Args:
        plan: the smallest one.
        free_bytes: there are.
        advice: what would fit.
    """

    def __init__(self, plan: MemoryPlan, free_bytes: int, advice: str) -> None:
        self.plan = plan
        self.free_bytes = free_bytes
        super().__init__(
            f"{_gigabytes(free_bytes)} of device memory are free, not enough for: {plan}. {advice}"
        )


def plan_memory(request: MemoryRequest) -> MemoryPlan:
    """The plan with the fewest streamed blocks that fits.

    When not even streaming every block fits, the rows are split finer than asked for (the results then
    change within rounding), and at last the ring shrinks to one slot.

    Raises:
        NotEnoughMemoryError: nothing fits; the message has the smallest plan and what would fit.
    """
    plans = list(_candidates(request))
    for plan in plans:
        if plan.device_bytes + request.headroom_bytes <= request.free_bytes:
            if plan.row_chunks != request.row_chunks:
                log.warning(
                    "memory is short: the rows are split into %d chunks instead of %d; "
                    "results change within rounding",
                    plan.row_chunks,
                    request.row_chunks,
                )
            return plan
    smallest = min(plans, key=lambda plan: plan.device_bytes)
    raise NotEnoughMemoryError(smallest, request.free_bytes, _advice(request, smallest))


def spread_evenly(count: int, blocks: int) -> tuple[int, ...]:
    """``count`` of ``blocks`` indices with even distances, seen as a circle: pass follows pass."""
    return tuple((2 * index + 1) * blocks // (2 * count) for index in range(count))


def device_bytes_of(block_bytes: tuple[int, ...], placement: Placement) -> int:
    """Bytes that resident blocks and the ring take on the device."""
    resident = sum(block_bytes[index] for index in placement.resident)
    return resident + placement.slots * max((block_bytes[index] for index in placement.streamed), default=0)


def _candidates(request: MemoryRequest) -> Iterator[MemoryPlan]:
    """Plans from the best to the one that needs least; each computes no faster than the one before."""
    blocks = len(request.used)
    first = min(request.minimum_streamed, blocks)
    if request.mode == "resident":
        yield _plan(request, 0, request.slots, request.row_chunks)
        return
    for count in range(blocks if request.mode == "stream" else first, blocks + 1):
        yield _plan(request, count, request.slots, request.row_chunks)
    finer = [request.row_chunks * factor for factor in range(2, FINER_CHUNKS + 1)]
    for row_chunks in finer:
        yield _plan(request, blocks, request.slots, row_chunks)
    for row_chunks in (request.row_chunks, *finer):
        yield _plan(request, blocks, 1, row_chunks)


def _plan(request: MemoryRequest, streamed: int, slots: int, row_chunks: int) -> MemoryPlan:
    block_bytes = tuple(size + request.lora_bytes_per_block for size in request.block_bytes)
    chosen = tuple(request.used[place] for place in spread_evenly(streamed, len(request.used)))
    placement = Placement(len(block_bytes), chosen, min(slots, streamed), request.idle)
    weights = request.rest_bytes + device_bytes_of(block_bytes, placement)
    activation = request.activation(row_chunks) * request.branches
    working = activation + request.workspace_bytes
    if request.embedders_stay:
        weights += request.embedder_bytes
    else:
        working = max(working, request.embedder_bytes)  # they are dropped before the first block computes
    return MemoryPlan(
        blocks=placement.blocks,
        streamed=placement.streamed,
        slots=placement.slots,
        idle=placement.idle,
        tokens=request.tokens,
        row_chunks=row_chunks,
        activation_bytes=activation,
        weight_bytes=weights,
        device_bytes=weights + working,
        stall_seconds=stall_seconds(request, streamed, placement.slots),
    )


def stall_seconds(request: MemoryRequest, streamed: int, slots: int) -> float:
    """Seconds per forward the device waits for the copies of evenly spread blocks.

    A ring that holds every streamed block copies each once. With several slots a copy runs while anything
    computes; with a single one it cannot run while a streamed block computes.
    """
    if streamed <= slots:
        return 0.0
    others = len(request.used) if slots > 1 else len(request.used) - streamed
    return max(0.0, streamed * request.copy_seconds - others * request.compute_seconds)


def _advice(request: MemoryRequest, smallest: MemoryPlan) -> str:
    available = request.free_bytes - request.headroom_bytes
    if request.mode == "resident":
        return "Let blocks be streamed, or choose a smaller video"
    for_activations = available - smallest.weight_bytes - request.workspace_bytes
    share = for_activations / max(smallest.activation_bytes, 1)
    if share <= 0:
        missing = _gigabytes(smallest.weight_bytes + request.workspace_bytes + request.headroom_bytes)
        return (
            f"Weights alone need {missing}: close other programs, or use a model file stored in fewer bits "
            "(fp8, GGUF)"
        )
    if request.branches > 1 and share * request.branches >= 1:
        return "One pass after the other instead of all together would fit: switch batched_cfg off"
    fewer = ""
    if request.frames > 1:
        latent = (request.frames - 1) // FRAMES_PER_LATENT + 1
        frames = max(int(latent * share) - 1, 0) * FRAMES_PER_LATENT + 1
        fewer = f"{frames} frames instead of {request.frames}, or "
    return (
        f"About {int(request.tokens * share):,} tokens would fit: {fewer}"
        f"width and height at {int(100 * share**0.5)} %"
    )


def _gigabytes(count: float) -> str:
    return f"{count / GIGABYTE:.1f} GB"
