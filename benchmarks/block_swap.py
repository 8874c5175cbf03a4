"""What streaming the blocks of Wan 14B costs: time of a forward, stall, peak memory of the device.

    .venv/bin/python benchmarks/block_swap.py            needs a CUDA device and 30 GB of host memory
    .venv/bin/python benchmarks/block_swap.py --plan     the memory by arithmetic, needs nothing
    .venv/bin/python benchmarks/block_swap.py --tiny     a small model on the host, to try this script

Random weights in bf16: the time does not depend on their values, so all blocks are given the same ones (each
still has its own pinned memory). Stall is the time beyond that of the resident run. The difference
to the resident run's result must be 0.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.memory import activation_bytes, row_chunks_for
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.weights.device_speed import block_seconds, device_speed
from comfyui_wanvideo.wanvideo.weights.dtype_policy import role_of
from comfyui_wanvideo.wanvideo.weights.plan import MemoryRequest, Placement, plan_memory, spread_evenly
from comfyui_wanvideo.wanvideo.weights.residency import ModelResidency
from comfyui_wanvideo.wanvideo.weights.slab import CUDA_PINNING, Pinning
from comfyui_wanvideo.wanvideo.weights.streams import streams_for
from comfyui_wanvideo.wanvideo.weights.workspace import expanded_bytes
from torch import Tensor, nn

GIGABYTE = 1e9
SLOTS = 2
CPU = torch.device("cpu")
WAN_14B = WanConfig(5120, 13824, 40, 40, 16, 16)
TINY = WanConfig(256, 512, 2, 8, 16, 16, text_width=64, text_length=16)
FREE_BYTES = 10**15  # the placement is given, not planned
STORED_BYTES = {"bf16": 2.0, "fp8": 1.0, "Q4_K": 4.5 / 8}  # per value


@dataclass(frozen=True)
class Case:
    """A model and where it runs: the ring of the tiny one is in host memory."""

    config: WanConfig
    geometries: Sequence[VideoGeometry]
    streamed: Sequence[int]
    device: torch.device


@dataclass(frozen=True)
class Measured:
    """One row: seconds per forward, peak bytes of the device, and the result."""

    seconds: float
    peak_bytes: int
    velocity: Tensor


def model_of(config: WanConfig, values: Callable[[torch.Size, torch.dtype], Tensor]) -> WanTransformer:
    """A model with the dtypes of the loader, whose blocks share their values."""
    with torch.device("meta"):
        model = WanTransformer(config)
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        shared = re.sub(r"^blocks\.\d+", "blocks.0", name)
        if shared not in state:
            dtype = torch.float32 if role_of(model, name) == "fp32" else torch.bfloat16
            state[shared] = values(parameter.shape, dtype)
        state[name] = state[shared]
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False)


def random_model(config: WanConfig) -> WanTransformer:
    """A model with normally distributed weights."""
    generator = torch.Generator().manual_seed(0)
    return model_of(
        config, lambda shape, dtype: torch.empty(shape, dtype=dtype).normal_(0, 0.02, generator=generator)
    )


def residency_of(model: WanTransformer, device: torch.device) -> ModelResidency:
    """The model's weights; on the host the device is played by the host."""
    embedders: list[nn.Module] = [model.text_embedding, model.time_embedding, model.time_projection]
    if device.type == "cuda":
        return ModelResidency(model, list(model.blocks), embedders=embedders, pin=CUDA_PINNING)
    pin = Pinning(lambda _slab: True, lambda _slab: None)
    return ModelResidency(
        model, list(model.blocks), embedders=embedders, pin=pin, make_streams=lambda _device: streams_for(CPU)
    )


def drop_embedders(residency: ModelResidency) -> None:
    """What a run does when text and timesteps are embedded."""
    residency.drop_embedders()


@torch.inference_mode()
def measure(case: Case, residency: ModelResidency, geometry: VideoGeometry, repeats: int) -> Measured:
    """The fastest of several forwards, after one that fills the pinned memory."""
    model = residency.module
    assert isinstance(model, WanTransformer)
    shape = (1, 16, geometry.latent_frames, geometry.latent_height, geometry.latent_width)
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(shape, generator=generator).to(case.device)
    text = torch.randn(case.config.text_length, case.config.text_width, generator=generator)
    options = RunOptions(
        attention=sdpa,
        walk=residency.walk,
        row_chunks=row_chunks_for(geometry.tokens),
        on_prepared=lambda: drop_embedders(residency),
    )
    run, conditioning = RunState(options), Conditioning(geometry, text=(text.to(case.device),))
    model.prepare_run(run, (500.0,), (conditioning,))
    seconds, velocity = [], latent
    for _ in range(repeats + 1):
        _synchronize(case.device, reset_peak=True)
        start = time.perf_counter()
        velocity = model(latent, (500.0,), conditioning, run)
        _synchronize(case.device)
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(case.device) if case.device.type == "cuda" else 0
    return Measured(min(seconds[1:]), peak, velocity.cpu())


def report(case: Case, repeats: int) -> None:
    """Print a row for each size and placement."""
    model = random_model(case.config)
    residency = residency_of(model, case.device)
    on = case.device if case.device.type == "cuda" else torch.device("cuda", 0)
    print("| tokens | streamed | s / forward | / resident | stall ms | expected | peak GB | planned | diff |")
    print("|---|---|---|---|---|---|---|---|---|")
    for geometry in case.geometries:
        resident: Measured | None = None
        for streamed in case.streamed:
            placement = spread_evenly(streamed, case.config.layers)
            residency.apply(Placement(case.config.layers, placement, min(SLOTS, streamed)))
            try:
                residency.load(on)
                found = measure(case, residency, geometry, repeats)
            except torch.OutOfMemoryError:
                residency.unload()
                print(f"| {geometry.tokens} | {streamed} | does not fit | | | | | | |", flush=True)
                continue
            if streamed == 0:
                resident = found
            print(row(case, residency, geometry, found, resident), flush=True)
    residency.unload()


def row(
    case: Case,
    residency: ModelResidency,
    geometry: VideoGeometry,
    found: Measured,
    resident: Measured | None,
) -> str:
    """One line of the table."""
    capability = torch.cuda.get_device_capability(case.device) if case.device.type == "cuda" else None
    plan = plan_memory(request_for(case.config, geometry, residency, len(residency.streamed), capability))
    ratio = stall = difference = ""
    if resident is not None:
        ratio = f"{found.seconds / resident.seconds:.3f}"
        stall = f"{(found.seconds - resident.seconds) * 1000:.0f}"
        difference = f"{float((found.velocity - resident.velocity).abs().max()):g}"
    return (
        f"| {geometry.tokens} | {len(residency.streamed)} | {found.seconds:.3f} | {ratio} | {stall} "
        f"| {plan.stall_seconds * 1000:.0f} | {found.peak_bytes / GIGABYTE:.2f} "
        f"| {plan.device_bytes / GIGABYTE:.2f} | {difference} |"
    )


def request_for(
    config: WanConfig,
    geometry: VideoGeometry,
    residency: ModelResidency,
    streamed: int,
    capability: tuple[int, int] | None,
    stored_bytes: float = 2.0,
    workspace_bytes: int = 0,
) -> MemoryRequest:
    """What a forward needs with this many blocks streamed; ``stored_bytes`` per value of a block."""
    speed, tokens = device_speed(capability), geometry.tokens
    sizes = tuple(int(size * stored_bytes / 2) for size in residency.block_bytes)
    return MemoryRequest(
        free_bytes=FREE_BYTES,
        block_bytes=sizes,
        rest_bytes=residency.rest_bytes,
        embedder_bytes=residency.embedder_bytes,
        activation=lambda chunks: activation_bytes(config, tokens, torch.bfloat16, row_chunks=chunks),
        row_chunks=row_chunks_for(tokens),
        tokens=tokens,
        minimum_streamed=streamed,
        slots=SLOTS,
        workspace_bytes=workspace_bytes,
        compute_seconds=block_seconds(config, tokens, speed),
        copy_seconds=sizes[0] / speed.copy_rate,
    )


def report_plan(config: WanConfig, geometries: Sequence[VideoGeometry]) -> None:
    """Print the memory with every block streamed, by arithmetic; no weight is allocated for it."""
    model = model_of(config, lambda shape, dtype: torch.empty(1, dtype=dtype).expand(shape))
    residency = residency_of(model, CPU)
    for geometry in geometries:
        for storage, stored_bytes in STORED_BYTES.items():
            # Packed weights are expanded while they compute; float16 stands for what is not stored here.
            expanded = expanded_bytes(model.blocks, torch.float16) if stored_bytes < 2 else 0
            request = request_for(config, geometry, residency, config.layers, (8, 9), stored_bytes, expanded)
            size = f"{geometry.width}x{geometry.height}, {geometry.frames} frames"
            print(f"{size}, {storage}: {plan_memory(request)}")


def _synchronize(device: torch.device, *, reset_peak: bool = False) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        if reset_peak:
            torch.cuda.reset_peak_memory_stats(device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args(arguments)
    videos = [VideoGeometry(832, 480, 81), VideoGeometry(1280, 720, 81)]
    if options.plan:
        report_plan(WAN_14B, videos)
        return
    if not options.tiny and not torch.cuda.is_available():
        print("This needs a CUDA device; --plan and --tiny run without one.")
        return
    if options.tiny:
        case = Case(TINY, [VideoGeometry(64, 64, 5)], (0, 4, 8), CPU)
        where = f"{platform.machine()}, the ring in host memory"
    else:
        case = Case(WAN_14B, videos, (0, 20, 40), torch.device("cuda", 0))
        where = torch.cuda.get_device_name(0)
    print(f"torch {torch.__version__}, {where}, bf16, {case.config.layers} blocks of width {case.config.dim}")
    report(case, options.repeats)


if __name__ == "__main__":
    main()
