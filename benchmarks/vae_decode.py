"""VAE decode and encode: ours against diffusers and ComfyUI, time and peak memory.

    .venv/bin/python benchmarks/vae_decode.py [--comfyui .dev/ComfyUI] [--width 96] [--size 128] [--frames 17]

One process per row, on the CPU, with the same random weights. `CPU seconds` is the median CPU time of the
process. `tensors` is the largest sum of live tensors during a run, pixels included and weights not; it does
not depend on the device. `process` is how far the resident memory of the process rises in its first run
(Linux only), whatever the libraries allocate for themselves included. `/` is the ratio to diffusers.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfyui_wanvideo.wanvideo.vae import load_vae
from comfyui_wanvideo.wanvideo.vae.layouts import official_name
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from measure import peak_bytes
from safetensors.torch import load_file, save_file

WHO = ("diffusers", "ComfyUI", "ours")
WHAT = ("decode", "encode")
Z, LEVELS = 16, (1, 2, 4, 4)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Call = Callable[[torch.Tensor], torch.Tensor]
Row = dict[str, Any]
Candidate = tuple[torch.nn.Module, Call, Call]  # network, decode, encode


def diffusers_network(width: int) -> Any:
    """diffusers' AutoencoderKLWan in the 2.1 layout."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=width, z_dim=Z)


def random_weights(width: int) -> dict[str, torch.Tensor]:
    """Weights under official names whose activations keep their size."""
    torch.manual_seed(0)
    weights = {}
    for key, value in diffusers_network(width).state_dict().items():
        fan_in = value[0].numel()
        value = torch.ones_like(value) if key.endswith("gamma") else torch.randn_like(value) * fan_in**-0.5
        weights[official_name(key, has_levels=False)] = value
    return weights


def diffusers_calls(file: Path, width: int, dtype: torch.dtype) -> Candidate:
    """Decode and encode of diffusers."""
    network, weights = diffusers_network(width), load_file(file)
    names = network.state_dict()
    network.load_state_dict({key: weights[official_name(key, has_levels=False)] for key in names})
    network = network.to(dtype).eval()
    return (
        network,
        lambda latent: network.decode(latent.to(dtype)).sample,
        lambda pixels: network.encode(pixels.to(dtype)).latent_dist.mode(),
    )


def comfyui_calls(file: Path, width: int, dtype: torch.dtype, comfyui: Path) -> Candidate:
    """Decode and encode of ComfyUI."""
    sys.path.append(str(comfyui))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True  # before comfy.model_management picks its device
    from comfy.ldm.wan.vae import WanVAE

    network = WanVAE(
        dim=width, z_dim=Z, dim_mult=list(LEVELS), num_res_blocks=2, temperal_downsample=[False, True, True]
    )
    network.load_state_dict(load_file(file), strict=True)
    network = network.to(dtype).eval()
    return (
        network,
        lambda latent: network.decode(latent.to(dtype)),
        lambda pixels: network.encode(pixels.to(dtype)),
    )


def our_calls(file: Path, dtype: torch.dtype) -> Candidate:
    """Decode and encode of this pack."""
    vae = load_vae(Checkpoint.open(file), dtype=dtype)
    return (
        vae.module,
        lambda latent: vae.decode(latent, device="cpu"),
        lambda pixels: vae.encode(pixels, device="cpu"),
    )


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median CPU time of a call: unlike wall time it hardly depends on what else the machine does."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return sorted(times)[len(times) // 2]


def risen_megabytes(call: Callable[[], object]) -> float:
    """How far the resident memory of this process rose during a call; nan where Linux's /proc is missing."""
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not refs.exists():
        call()
        return float("nan")
    refs.write_text("5")  # the high-water mark starts anew
    before = _high_water(status)
    call()
    return (_high_water(status) - before) / 1024


def _high_water(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


@torch.inference_mode()
def worker(options: argparse.Namespace) -> None:
    """Measure one row and print it as JSON."""
    torch.set_num_threads(options.threads)
    file, dtype = Path(options.weights), DTYPES[options.dtype]
    if options.who == "diffusers":
        network, *calls = diffusers_calls(file, options.width, dtype)
    elif options.who == "ComfyUI":
        network, *calls = comfyui_calls(file, options.width, dtype, options.comfyui.resolve())
    else:
        network, *calls = our_calls(file, dtype)
    call = calls[WHAT.index(options.what)]
    value = load_file(options.inputs)[options.what]
    run = partial(call, value)
    row: Row = {"process": risen_megabytes(run), "seconds": cpu_seconds(run, options.repeats)}
    result, peak = peak_bytes(run, [value, *network.parameters()])
    row["tensors"] = peak / 2**20
    row["sample"] = result.float().clamp(-1, 1).flatten()[::997].tolist()
    print(json.dumps(row))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comfyui", type=Path, default=Path(".dev/ComfyUI"))
    parser.add_argument("--width", type=int, default=96, help="base width; the released VAE has 96")
    parser.add_argument("--size", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    for hidden in ("--who", "--what", "--weights", "--inputs"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table, or with --who measure one row of it."""
    options = parse()
    if options.who:
        worker(options)
        return
    print(
        f"torch {torch.__version__}, {platform.machine()}, {options.threads} threads, {options.dtype}, "
        f"width {options.width}, {options.frames} frames of {options.size}x{options.size}"
    )
    print("| what | who | CPU seconds | / | tensors MB | / | process MB | / | rel. difference |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        weights, inputs = Path(folder) / "vae.safetensors", Path(folder) / "inputs.safetensors"
        save_file(random_weights(options.width), weights)
        grid = options.size // 8
        latent = torch.randn(1, Z, (options.frames - 1) // 4 + 1, grid, grid)
        pixels = torch.rand(1, 3, options.frames, options.size, options.size) * 2 - 1
        save_file({"decode": latent, "encode": pixels}, inputs)
        for what in WHAT:
            report(what, {who: measured(who, what, weights, inputs) for who in WHO})


def report(what: str, rows: dict[str, Row]) -> None:
    """Print the rows of one direction."""
    base = rows["diffusers"]
    reference = torch.tensor(base["sample"])
    for who, row in rows.items():
        difference = float((torch.tensor(row["sample"]) - reference).norm() / reference.norm())
        print(
            f"| {what} | {who} | {row['seconds']:.2f} | {row['seconds'] / base['seconds']:.2f} "
            f"| {row['tensors']:.0f} | {row['tensors'] / base['tensors']:.2f} "
            f"| {row['process']:.0f} | {row['process'] / base['process']:.2f} | {difference:.1e} |",
            flush=True,
        )


def measured(who: str, what: str, weights: Path, inputs: Path) -> Row:
    """One row, from a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--who", who, "--what", what]
    command += ["--weights", str(weights), "--inputs", str(inputs)]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    if output.returncode:
        sys.exit(f"{who} failed:\n{output.stderr}")
    return json.loads(output.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
