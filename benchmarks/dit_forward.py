"""One transformer forward: ours against diffusers and ComfyUI, time and peak activation memory.

    .venv/bin/python benchmarks/dit_forward.py [--comfyui .dev/ComfyUI] [--layers 4] [--repeats 3]

All three run in one process on the CPU with the same random weights of width 1536; each round runs them
in turn, and the table shows the median as a ratio to diffusers. Memory is the largest sum of live tensors
during a forward (weights not counted), which does not depend on the device.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.weights.dtype_policy import role_of
from comfyui_wanvideo.wanvideo.weights.keys import to_diffusers
from measure import peak_bytes, rounds
from torch import nn

WIDTH, FFN_WIDTH, HEADS, TEXT_WIDTH = 1536, 8960, 12, 4096
Contestant = tuple[nn.Module, Callable[[], torch.Tensor]]  # the network, and one forward of it
LATENT_FRAMES = {1560: 1, 6240: 4}  # tokens of 832x480
ACTIVATION_BYTES = 2  # one U of memory is tokens x width x 2 bytes


def our_model(layers: int, dtype: torch.dtype) -> WanTransformer:
    """Random weights, stored as the loader would store them."""
    torch.manual_seed(0)
    model = WanTransformer(WanConfig(WIDTH, FFN_WIDTH, HEADS, layers, 16, 16, TEXT_WIDTH))
    for name, parameter in model.named_parameters():
        value = torch.randn_like(parameter) * 0.02
        wide = role_of(model, name) == "fp32"
        parameter.data = value if wide else value.to(dtype)
    return model


def our_forward(model: WanTransformer, latent: torch.Tensor, text: torch.Tensor) -> Contestant:
    """A step of a run: text and time were embedded by an earlier step."""
    geometry = VideoGeometry(832, 480, 4 * (latent.shape[2] - 1) + 1)
    conditioning = Conditioning(geometry, text=(text[0],))
    run = RunState(RunOptions(attention=sdpa))
    return model, lambda: model(latent, (500.0,), conditioning, run)


def diffusers_forward(
    model: WanTransformer, dtype: torch.dtype, latent: torch.Tensor, text: torch.Tensor
) -> Contestant:
    """diffusers' WanTransformer3DModel with our weights."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    twin = WanTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=128,
        text_dim=TEXT_WIDTH,
        ffn_dim=FFN_WIDTH,
        num_layers=len(model.blocks),
    )
    twin.load_state_dict({to_diffusers(k): v for k, v in model.state_dict().items()}, strict=True)
    twin.eval().type(dtype)
    timestep = torch.tensor([500.0])
    return twin, lambda: twin(latent.to(dtype), timestep, text.to(dtype)).sample


def comfyui_forward(
    model: WanTransformer, dtype: torch.dtype, latent: torch.Tensor, text: torch.Tensor
) -> Contestant:
    """ComfyUI's WanModel with our weights; patch embedding in float32, as ComfyUI loads it."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    twin = WanModel(
        model_type="t2v",
        dim=WIDTH,
        ffn_dim=FFN_WIDTH,
        text_dim=TEXT_WIDTH,
        num_heads=HEADS,
        num_layers=len(model.blocks),
        operations=comfy.ops.disable_weight_init,
        dtype=dtype,
        device=latent.device,
    )
    twin.load_state_dict(model.state_dict(), strict=True)
    timestep = torch.tensor([500.0])
    return twin, lambda: twin(latent.to(dtype), timestep, context=text.to(dtype))


def load_comfyui(path: Path, *, on_cpu: bool) -> None:
    """Put ComfyUI on the path, without it reading our arguments."""
    sys.path.insert(0, str(path))
    sys.argv = sys.argv[:1]
    import comfy.options  # noqa: F401
    from comfy.cli_args import args

    args.cpu = on_cpu


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comfyui", type=Path, default=Path(".dev/ComfyUI"))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    load_comfyui(options.comfyui.resolve(), on_cpu=options.device == "cpu")
    torch.set_default_device(options.device)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads, "
        f"width {WIDTH}, {options.layers} layers; U = tokens x width x 2 bytes"
    )
    print(
        "| dtype | tokens | who | seconds | time / diffusers | peak U | peak / diffusers | rel. difference |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        model = our_model(options.layers, dtype)
        for tokens, frames in LATENT_FRAMES.items():
            report(model, dtype, tokens, frames, options.repeats)


@torch.inference_mode()
def report(model: WanTransformer, dtype: torch.dtype, tokens: int, frames: int, repeats: int) -> None:
    """Measure the three at one size."""
    latent, text = torch.randn(1, 16, frames, 60, 104), torch.randn(1, 512, TEXT_WIDTH)
    contestants = {
        "diffusers": diffusers_forward(model, dtype, latent, text),
        "ComfyUI": comfyui_forward(model, dtype, latent, text),
        "ours": our_forward(model, latent, text),
    }
    existing = [latent, text, *(list(network.parameters()) for network, _ in contestants.values())]
    calls = {who: call for who, (_, call) in contestants.items()}
    warmed = {who: peak_bytes(call, existing) for who, call in calls.items()}  # also warms up
    seconds = rounds(calls, repeats)
    reference, base_peak = warmed["diffusers"]
    unit = tokens * WIDTH * ACTIVATION_BYTES
    name = str(dtype).removeprefix("torch.")
    for who, (velocity, peak) in warmed.items():
        difference = float((velocity.float() - reference.float()).norm() / reference.float().norm())
        print(
            f"| {name} | {tokens} | {who} | {seconds[who]:.2f} | {seconds[who] / seconds['diffusers']:.2f} "
            f"| {peak / unit:.1f} | {peak / base_peak:.2f} | {difference:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
