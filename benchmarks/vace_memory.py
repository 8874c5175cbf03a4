"""Peak activation memory of one forward with VACE, of diffusers, ComfyUI and ours.

    .venv/bin/python benchmarks/vace_memory.py [--comfyui .dev/ComfyUI] [--contexts 1]

The 14B model with its eight VACE blocks at 832x480, 81 frames, bf16; weights and inputs are not counted. On
the meta device, as in activation_memory.py: sizes are real, nothing is computed, attention holds its result
only. "Estimate" is what the memory plan counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from activation_memory import HEIGHT, TEXT_WIDTH, WIDTH, attention_without_values, inputs
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.vace.family import layers_of
from comfyui_wanvideo.wanvideo.families.vace.inputs import VACE, VaceContext, VaceInput
from comfyui_wanvideo.wanvideo.families.vace.stream import VaceBlock, VaceStream
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.memory import activation_bytes, row_chunks_for
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.transformer.patches import PatchEmbedding
from comfyui_wanvideo.wanvideo.weights.dtype_policy import role_of
from dit_forward import load_comfyui
from measure import peak_bytes
from torch import nn

FRAMES = 81
CONFIG = WanConfig(5120, 13824, 40, 40, 16, 16, TEXT_WIDTH)
VACE_BLOCKS, VACE_CHANNELS = 8, 96
DTYPE = torch.bfloat16
GIGABYTE = 1e9
GEOMETRY = VideoGeometry(WIDTH, HEIGHT, FRAMES)


def contexts(count: int) -> VaceInput:
    """So many inputs of the size of the video, as prepared."""
    size = (GEOMETRY.latent_frames, GEOMETRY.latent_height, GEOMETRY.latent_width)

    def part(channels: int) -> Timed:
        return Timed(torch.empty(1, channels, *size, device="meta"))

    return VaceInput(tuple(VaceContext(part(16), part(16), part(64)) for _ in range(count)))


def our_model() -> WanTransformer:
    """The transformer with VACE, on the meta device."""
    with torch.device("meta"):
        model = WanTransformer(CONFIG)
        model.vace_patch_embedding = PatchEmbedding(VACE_CHANNELS, CONFIG.dim)
        blocks = [VaceBlock(CONFIG, is_first=number == 0) for number in range(VACE_BLOCKS)]
        model.vace_blocks = nn.ModuleList(blocks)
    model.points.streams[VACE] = VaceStream(
        model.vace_patch_embedding, blocks, layers_of(VACE_BLOCKS, CONFIG.layers)
    )
    return model


def our_peak(count: int, row_chunks: int) -> int:
    """Bytes at the peak of our forward, as a step of a run."""
    model = our_model()
    for name, parameter in model.named_parameters():
        if role_of(model, name) != "fp32":
            parameter.data = parameter.data.to(DTYPE)
    latent, text = inputs(FRAMES, torch.float32)
    vace = contexts(count)
    conditioning = Conditioning(GEOMETRY, text=(text[0],), inputs={VACE: vace})
    run = RunState(RunOptions(attention=sdpa, row_chunks=row_chunks))
    with torch.inference_mode():
        model.prepare_run(run, (500.0,), [conditioning])
    given = [part.values for each in vace.contexts for part in (each.inactive, each.reactive, each.mask)]
    existing = [latent, text, *given, *model.parameters()]
    return peak_bytes(lambda: model(latent, (500.0,), conditioning, run), existing)[1]


def estimate(count: int, row_chunks: int) -> int:
    """What the memory plan counts."""
    tokens = GEOMETRY.tokens
    beside = contexts(count).working_bytes(tokens, CONFIG, DTYPE.itemsize)
    return activation_bytes(CONFIG, tokens, DTYPE, row_chunks=row_chunks) + beside


def diffusers_peak() -> int:
    """Bytes at the peak of diffusers' WanVACETransformer3DModel."""
    from diffusers.models.transformers.transformer_wan_vace import WanVACETransformer3DModel

    step = CONFIG.layers // VACE_BLOCKS
    with torch.device("meta"):
        model = WanVACETransformer3DModel(
            num_attention_heads=CONFIG.heads,
            text_dim=TEXT_WIDTH,
            ffn_dim=CONFIG.ffn_dim,
            num_layers=CONFIG.layers,
            vace_layers=list(range(0, CONFIG.layers, step)),
            vace_in_channels=VACE_CHANNELS,
        )
    model.type(DTYPE)
    latent, text = inputs(FRAMES, DTYPE)
    control = torch.empty(1, VACE_CHANNELS, *latent.shape[2:], dtype=DTYPE, device="meta")
    timestep = torch.empty(1, device="meta")
    existing = [latent, text, control, *model.parameters(), *model.buffers()]
    return peak_bytes(lambda: model(latent, timestep, text, control_hidden_states=control).sample, existing)[
        1
    ]


def comfyui_peak(count: int) -> int:
    """Bytes at the peak of ComfyUI's VaceWanModel."""
    import comfy.ops
    from comfy.ldm.wan.model import VaceWanModel

    model = VaceWanModel(
        model_type="vace",
        dim=CONFIG.dim,
        ffn_dim=CONFIG.ffn_dim,
        text_dim=TEXT_WIDTH,
        num_heads=CONFIG.heads,
        num_layers=CONFIG.layers,
        vace_layers=VACE_BLOCKS,
        vace_in_dim=VACE_CHANNELS,
        operations=comfy.ops.disable_weight_init,
        dtype=DTYPE,
        device="meta",
    )
    latent, text = inputs(FRAMES, DTYPE)
    control = torch.empty(1, count, VACE_CHANNELS, *latent.shape[2:], dtype=DTYPE, device="meta")
    timestep = torch.empty(1, device="meta")
    existing = [latent, text, control, *model.parameters()]
    return peak_bytes(
        lambda: model(latent, timestep, context=text, vace_context=control, vace_strength=[1.0] * count),
        existing,
    )[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comfyui", type=Path, help="folder of a ComfyUI, to measure it too")
    parser.add_argument("--contexts", type=int, default=1, help="VACE inputs; diffusers knows one")
    options = parser.parse_args()
    peers: dict[str, Callable[[], int]] = {"diffusers": diffusers_peak} if options.contexts == 1 else {}
    if options.comfyui:
        load_comfyui(options.comfyui.resolve(), on_cpu=True)
        from comfy.cli_args import args

        args.use_pytorch_cross_attention = True
        peers["ComfyUI"] = lambda: comfyui_peak(options.contexts)
    chunks = row_chunks_for(GEOMETRY.tokens)
    unit = GEOMETRY.tokens * CONFIG.dim * 2
    print(f"torch {torch.__version__}; 14B with {VACE_BLOCKS} VACE blocks, {options.contexts} inputs, bf16")
    print("| who | peak U | peak GB | estimate / peak |")
    print("|---|---|---|---|")
    with attention_without_values():
        for who, measure in peers.items():
            peak = measure()
            print(f"| {who} | {peak / unit:.2f} | {peak / GIGABYTE:.2f} | |", flush=True)
        for row_chunks in (1, chunks):
            peak = our_peak(options.contexts, row_chunks)
            share = estimate(options.contexts, row_chunks) / peak
            name = f"ours, {row_chunks} row chunks" if row_chunks > 1 else "ours, whole"
            print(f"| {name} | {peak / unit:.2f} | {peak / GIGABYTE:.2f} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
