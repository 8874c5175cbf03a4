"""Write the tiny checkpoints: a table of files, and the command line over it.

To add a format, write a function `(path, seed) -> None` and give it a row in `FILES`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from . import bad, family_files, fill, formats, gguf, specs, spiece
from .files import save

DEMO, BENCH, BAD, GGUF, FORMATS = "demo", "bench", "bad", "gguf", "formats"
# One block stack of the 1.3B model: real widths, few layers.
_BENCH_SIZE = specs.DiTSize(width=1536, feed_forward=8960, layers=4, text_width=4096)


@dataclass(frozen=True)
class TinyFile:
    """One file the generator can write.

    Args:
        folder: the model folder of ComfyUI it belongs into.
        name: file name.
        group: "demo" is written when nothing is asked for; "bench" has real widths; "gguf" is in ggml's
            block types, "formats" in the other storage formats; "bad" must be refused. The others are named
            after the models in them (`family_files`).
        write: writes the file for a seed.
    """

    folder: str
    name: str
    group: str
    write: Callable[[Path, int], None]

    def answers_to(self, name: str) -> bool:
        """Whether `name` asks for this file: its name with or without suffix, or its group."""
        return name in (self.name, Path(self.name).stem, self.group)


def write_dit(path: Path, seed: int, *, size: specs.DiTSize | None = None, dtype: torch.dtype) -> None:
    """Write a text-to-video transformer; the values depend on the seed, not on the dtype."""
    shapes = specs.dit(size or specs.DiTSize())
    save(fill.tensors(shapes, file="dit", seed=seed, dtype=dtype), path)


def write_umt5(path: Path, seed: int, *, is_hf: bool, dtype: torch.dtype) -> None:
    """Write a text encoder; the two key styles hold the same values, only the HF one the tokenizer."""
    tensors = fill.tensors(specs.umt5(specs.UMT5Size()), file="umt5", seed=seed, dtype=dtype)
    if is_hf:
        tensors = {specs.umt5_hf_name(key): tensor for key, tensor in tensors.items()}
        tensors["spiece_model"] = spiece.as_tensor(spiece.train())
    save(tensors, path)


def write_wan21_vae(path: Path, seed: int, *, dtype: torch.dtype) -> None:
    """Write a Wan 2.1 VAE."""
    save(fill.tensors(specs.wan21_vae(specs.VAESize()), file="vae", seed=seed, dtype=dtype), path)


FILES: tuple[TinyFile, ...] = (
    TinyFile(
        "diffusion_models",
        "tiny_wan21_t2v_fp32.safetensors",
        DEMO,
        lambda path, seed: write_dit(path, seed, dtype=torch.float32),
    ),
    TinyFile(
        "text_encoders",
        "tiny_umt5_xxl_fp16.safetensors",
        DEMO,
        lambda path, seed: write_umt5(path, seed, is_hf=True, dtype=torch.float16),
    ),
    TinyFile(
        "text_encoders",
        "tiny_umt5-xxl-enc-bf16.safetensors",
        DEMO,
        lambda path, seed: write_umt5(path, seed, is_hf=False, dtype=torch.bfloat16),
    ),
    TinyFile(
        "vae",
        "tiny_wan21_vae_fp32.safetensors",
        DEMO,
        lambda path, seed: write_wan21_vae(path, seed, dtype=torch.float32),
    ),
    TinyFile(
        "diffusion_models",
        "bench_wan21_t2v_1.3b_4_blocks_bf16.safetensors",
        BENCH,
        lambda path, seed: write_dit(path, seed, size=_BENCH_SIZE, dtype=torch.bfloat16),
    ),
    TinyFile("diffusion_models", "bad_web_page.safetensors", BAD, bad.web_page),
    TinyFile("diffusion_models", "bad_empty.safetensors", BAD, bad.empty),
    TinyFile("diffusion_models", "bad_truncated.safetensors", BAD, bad.truncated),
    TinyFile("diffusion_models", "bad_extra_key.safetensors", BAD, bad.extra_key),
    TinyFile("diffusion_models", "bad_missing_key.safetensors", BAD, bad.missing_key),
    TinyFile("diffusion_models", "bad_wrong_shape.safetensors", BAD, bad.wrong_shape),
    TinyFile("diffusion_models", "bad_nan.safetensors", BAD, bad.nan_weights),
    TinyFile("diffusion_models", "bad_evil_dit.pth", BAD, bad.evil_pickle),
    TinyFile("vae", "bad_dit_as_vae.safetensors", BAD, bad.transformer),
    TinyFile("vae", "bad_evil_vae.pth", BAD, bad.evil_pickle),
    TinyFile("text_encoders", "bad_dit_as_umt5.safetensors", BAD, bad.transformer),
    TinyFile("text_encoders", "bad_plain_t5.safetensors", BAD, bad.plain_t5),
    TinyFile("text_encoders", "bad_evil_umt5.pth", BAD, bad.evil_pickle),
    *(
        TinyFile(folder, name, group, write)
        for group, makers in family_files.MAKERS.items()
        for (folder, name), write in makers.items()
    ),
    *(TinyFile(folder, name, GGUF, write) for (folder, name), write in gguf.MAKERS.items()),
    *(TinyFile(folder, name, FORMATS, write) for (folder, name), write in formats.MAKERS.items()),
    *(
        TinyFile(folder, name, BAD, write)
        for makers in (gguf.BAD_MAKERS, formats.BAD_MAKERS)
        for (folder, name), write in makers.items()
    ),
)


def write(folder: str | Path, names: Iterable[str] = (DEMO,), seed: int = 0) -> list[Path]:
    """Write files into `folder`/<model folder>/; the same bytes for the same seed.

    Args:
        folder: a `models` folder; sub-folders are made.
        names: file names, with or without suffix, or groups.
        seed: of all random values.

    Returns:
        The paths, in the table's order.

    Raises:
        ValueError: a name that is not in the table.
    """
    names = tuple(names)
    unknown = [name for name in names if not any(file.answers_to(name) for file in FILES)]
    if unknown:
        known = sorted({file.group for file in FILES} | {file.name for file in FILES})
        raise ValueError(f"no tiny file is called {', '.join(unknown)}; choose from {', '.join(known)}")
    written = []
    for file in FILES:
        if any(file.answers_to(name) for name in names):
            path = Path(folder) / file.folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            file.write(path, seed)
            written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write tiny random Wan checkpoints for demos and tests.")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a models folder")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[DEMO],
        metavar="NAME",
        help=f"file names or groups ({', '.join(_groups())}) instead of the demo set",
    )
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    try:
        written = write(asked.out, asked.only, asked.seed)
    except ValueError as error:
        parser.error(str(error))
    for path in written:
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    return 0


def _groups() -> list[str]:
    return list(dict.fromkeys(file.group for file in FILES))
