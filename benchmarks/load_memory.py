"""Loading a model file: peak memory of the process and seconds, ours against safetensors + PyTorch.

    .venv/bin/python benchmarks/load_memory.py [--blocks 2] [--file PATH]

Writes a file of random weights with the widths of the 14B model (two blocks: 1.9 GB in bfloat16), then loads
it in one process per row. "peak" is the largest resident set of the loading process (VmHWM) less what it
had after its imports; pages of the mapped file count while they are mapped in. The bound of the project is
the file's size, two of its largest tensors and 300 MB. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

MEGABYTE = 10**6
SLACK = 300 * MEGABYTE
WIDTH, FFN_WIDTH, TEXT_WIDTH = 5120, 13824, 4096
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ours: bf16 file, bf16": ("ours", {"precision": "bfloat16"}),
    "ours: bf16 file, fp16 (every weight cast)": ("ours", {"precision": "float16"}),
    "ours: bf16 file, fp8_e4m3fn": ("ours", {"precision": "bfloat16", "conversion": "none"}),
    "ours: bf16 file, fp8_e4m3fn with row scales": ("ours", {"precision": "bfloat16", "conversion": "row"}),
    "safetensors load_file, load_state_dict": ("peer", {"precision": "bfloat16"}),
    "safetensors load_file, cast to fp16": ("peer", {"precision": "float16"}),
}


def write_file(path: Path, blocks: int) -> None:
    """Random weights of `blocks` blocks of the 14B model."""
    from comfyui_wanvideo.tools.tiny import specs
    from safetensors.torch import save_file

    size = specs.DiTSize(width=WIDTH, feed_forward=FFN_WIDTH, layers=blocks, text_width=TEXT_WIDTH)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        key: torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
        for key, shape in specs.dit(size).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def peak_resident() -> int:
    """The largest resident set of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def load_ours(path: Path, precision: str, conversion: Any = None) -> object:
    """The loader of the pack."""
    from comfyui_wanvideo.wanvideo.load import load_transformer
    from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
    from comfyui_wanvideo.wanvideo.weights.conversion import Conversion

    wanted = None if conversion is None else Conversion(torch.float8_e4m3fn, conversion)
    return load_transformer(Checkpoint.open(path), compute_dtype=getattr(torch, precision), conversion=wanted)


def load_peer(path: Path, precision: str) -> object:
    """A state dict copied into a module of the wanted dtype, as most loaders do."""
    from comfyui_wanvideo.wanvideo.load import detect
    from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
    from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
    from safetensors.torch import load_file

    with torch.device("meta"):
        module = WanTransformer(detect(Checkpoint.open(path)).config)
    module = module.to(getattr(torch, precision)).to_empty(device="cpu")
    module.load_state_dict(load_file(path))
    return module


def measure(case: str, path: Path) -> dict[str, float]:
    """Load in this process."""
    import comfyui_wanvideo.wanvideo.load
    import safetensors.torch  # noqa: F401

    del comfyui_wanvideo
    who, options = CASES[case]
    before, start = peak_resident(), time.perf_counter()
    module = (load_ours if who == "ours" else load_peer)(path, **options)
    seconds = time.perf_counter() - start
    del module
    return {"peak": peak_resident() - before, "seconds": seconds}


def main() -> None:
    """Print the table, or measure one case when called for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--file", type=Path, help="keep the synthetic file here and use it again")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.file)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "synthetic.safetensors"
        if not path.exists():
            write_file(path, options.blocks)
        report(path)


def report(path: Path) -> None:
    """One process per row."""
    size = path.stat().st_size
    largest = FFN_WIDTH * WIDTH * 2
    bound = size + 2 * largest + SLACK
    print(
        f"file {size / MEGABYTE:.0f} MB, largest tensor {largest / MEGABYTE:.0f} MB, "
        f"bound {bound / MEGABYTE:.0f} MB; torch {torch.__version__}"
    )
    print("| load | peak MB | peak / file | within the bound | seconds |")
    print("|---|---|---|---|---|")
    for case in CASES:
        command = [sys.executable, __file__, "--case", case, "--file", str(path)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = json.loads(answer.splitlines()[-1])
        within = "yes" if found["peak"] <= bound else "no"
        print(
            f"| {case} | {found['peak'] / MEGABYTE:.0f} | {found['peak'] / size:.2f} | {within} "
            f"| {found['seconds']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
