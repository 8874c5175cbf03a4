"""Peak activation memory of one forward: whole, in row chunks, and of diffusers and ComfyUI.

    .venv/bin/python benchmarks/activation_memory.py [--comfyui .dev/ComfyUI] [--width 14B] [--frames 81]

The largest sum of live tensors of a forward of 832x480 through one block, weights and inputs not counted.
Tensors are on the meta device: they have sizes and no values, so the sizes are those of the real models and
nothing is computed. Attention holds its result only, as flash attention does; what a kernel uses inside is
not seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.memory import activation_bytes, row_chunks_for
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.transformer.rope import RopeOptions
from comfyui_wanvideo.wanvideo.weights.dtype_policy import role_of
from dit_forward import load_comfyui
from measure import peak_bytes
from torch import Tensor

WIDTHS = {"14B": (5120, 13824), "5B": (3072, 14336), "1.3B": (1536, 8960)}
TEXT_WIDTH, TEXT_LENGTH = 4096, 512
HEIGHT, WIDTH = 480, 832
GIGABYTE = 1e9
Forward = Callable[[], Tensor]


def sizes(name: str) -> WanConfig:
    """One block of a model."""
    dim, ffn_dim = WIDTHS[name]
    return WanConfig(dim, ffn_dim, dim // 128, 1, 16, 16, TEXT_WIDTH)


def inputs(frames: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A latent and a text."""
    latent = torch.empty(1, 16, (frames - 1) // 4 + 1, HEIGHT // 8, WIDTH // 8, dtype=dtype, device="meta")
    return latent, torch.empty(1, TEXT_LENGTH, TEXT_WIDTH, dtype=dtype, device="meta")


def our_peak(config: WanConfig, dtype: torch.dtype, frames: int, options: RunOptions) -> int:
    """Bytes at the peak of our forward, as a step of a run: text and time were embedded before."""
    with torch.device("meta"):
        model = WanTransformer(config)
    for name, parameter in model.named_parameters():
        if role_of(model, name) != "fp32":
            parameter.data = parameter.data.to(dtype)
    latent, text = inputs(frames, torch.float32)
    conditioning = Conditioning(VideoGeometry(WIDTH, HEIGHT, frames), text=(text[0],))
    run = RunState(options)
    with torch.inference_mode():
        model.prepare_run(run, (500.0,), [conditioning])
    return peak_bytes(
        lambda: model(latent, (500.0,), conditioning, run), [latent, text, *model.parameters()]
    )[1]


def diffusers_peak(config: WanConfig, dtype: torch.dtype, frames: int) -> int:
    """Bytes at the peak of diffusers' WanTransformer3DModel."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=config.heads, text_dim=TEXT_WIDTH, ffn_dim=config.ffn_dim, num_layers=1
        )
    latent, text = inputs(frames, dtype)
    model.type(dtype)
    timestep = torch.empty(1, device="meta")
    existing = [latent, text, *model.parameters(), *model.buffers()]
    return peak_bytes(lambda: model(latent, timestep, text).sample, existing)[1]


def comfyui_peak(config: WanConfig, dtype: torch.dtype, frames: int) -> int:
    """Bytes at the peak of ComfyUI's WanModel."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    model = WanModel(
        model_type="t2v",
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        text_dim=TEXT_WIDTH,
        num_heads=config.heads,
        num_layers=1,
        operations=comfy.ops.disable_weight_init,
        dtype=dtype,
        device="meta",
    )
    latent, text = inputs(frames, dtype)
    timestep = torch.empty(1, device="meta")
    return peak_bytes(lambda: model(latent, timestep, context=text), [latent, text, *model.parameters()])[1]


@contextmanager
def attention_without_values() -> Iterator[None]:
    """PyTorch's attention holds its result only, which is laid out as flash attention lays it out."""
    original = F.scaled_dot_product_attention

    def attend(query: Tensor, *_arguments: Any, **_options: Any) -> Tensor:
        return torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)

    F.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def variants(tokens: int) -> dict[str, tuple[int, str]]:
    """Row chunks and RoPE function of our rows of the table."""
    default, chunked = row_chunks_for(tokens), row_chunks_for(tokens, rope_function="comfy_chunked")
    return {
        "ours, whole": (1, "comfy"),
        "ours, 4 row chunks": (4, "comfy"),
        "ours, 8 row chunks": (8, "comfy"),
        "ours, 16 row chunks": (16, "comfy"),
        f"ours, as the sampler sets it ({default})": (default, "comfy"),
        f"ours, comfy_chunked ({chunked})": (chunked, "comfy_chunked"),
    }


def report(config: WanConfig, dtype: torch.dtype, frames: int, peers: dict[str, Callable[..., int]]) -> None:
    """Print the rows of one dtype."""
    tokens = ((frames - 1) // 4 + 1) * (HEIGHT // 16) * (WIDTH // 16)
    unit, name = tokens * config.dim * 2, str(dtype).removeprefix("torch.")
    for who, measure in peers.items():
        peak = measure(config, dtype, frames)
        print(f"| {name} | {who} | {peak / unit:.2f} | {peak / GIGABYTE:.2f} | |", flush=True)
    for who, (chunks, function) in variants(tokens).items():
        rope = RopeOptions(function=function)
        peak = our_peak(config, dtype, frames, RunOptions(attention=sdpa, row_chunks=chunks, rope=rope))
        estimate = activation_bytes(config, tokens, dtype, row_chunks=chunks, rope_function=function)
        print(
            f"| {name} | {who} | {peak / unit:.2f} | {peak / GIGABYTE:.2f} | {estimate / peak:.2f} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comfyui", type=Path, help="folder of a ComfyUI, to measure it too")
    parser.add_argument("--width", choices=WIDTHS, default="14B")
    parser.add_argument("--frames", type=int, default=81)
    options = parser.parse_args()
    peers: dict[str, Callable[..., int]] = {"diffusers": diffusers_peak}
    if options.comfyui:
        load_comfyui(options.comfyui.resolve(), on_cpu=True)
        from comfy.cli_args import args

        args.use_pytorch_cross_attention = True
        peers["ComfyUI"] = comfyui_peak
    print(
        f"torch {torch.__version__}; {options.width} wide, one block, {WIDTH}x{HEIGHT}, "
        f"{options.frames} frames; U = tokens x width x 2 bytes"
    )
    print("| dtype | who | peak U | peak GB | estimate / peak |")
    print("|---|---|---|---|---|")
    with attention_without_values():
        for dtype in (torch.bfloat16, torch.float32):
            report(sizes(options.width), dtype, options.frames, peers)


if __name__ == "__main__":
    main()
