"""Tiny files of all models beyond text to video: pictures, Wan 2.2 and the control families.

What real modules start with zeros (VACE's and Uni3C's projections, the widened part of a control LoRA) is
random here, so that it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from . import families, fill, vae22, vision
from .files import save
from .specs import DiTSize, Shapes, dit

IMAGE, FUN, CONTROL_LORA, PHANTOM = "image", "fun", "control_lora", "phantom"
VACE, UNI3C = "vace", "uni3c"

_VACE_LAYERS = 2
_CONTROL_CHANNELS = 32

Write = Callable[[Path, int], None]
Addition = Callable[[DiTSize], Shapes]


def write_dit(
    path: Path, seed: int, *, tag: str, size: DiTSize | None = None, additions: tuple[Addition, ...] = ()
) -> None:
    """Write a transformer with what a family adds to it, in float32.

    Args:
        path: the file.
        seed: of all values.
        tag: the values are those of this name; "dit" has those of the text-to-video transformer.
        size: its sizes.
        additions: further keys, as functions of the sizes.
    """
    size = size or DiTSize()
    shapes = dit(size)
    for addition in additions:
        shapes.update(addition(size))
    save(fill.tensors(shapes, file=tag, seed=seed), path)


def write_vace(path: Path, seed: int, *, is_full: bool) -> None:
    """Write a VACE module, alone or in one file with the text-to-video transformer: the same values."""
    module = fill.tensors(families.vace(DiTSize(), _VACE_LAYERS), file="vace", seed=seed)
    save({**_text_to_video(seed), **module} if is_full else module, path)


def write_control_lora(path: Path, seed: int) -> None:
    """Write a LoRA that widens the patch embedding for a control video."""
    factors = _control_factors(seed)
    reshape = torch.tensor((DiTSize().width, _CONTROL_CHANNELS, 1, 2, 2))
    save({**factors, "diffusion_model.patch_embedding.reshape_weight": reshape}, path)


def write_merged_control_lora(path: Path, seed: int) -> None:
    """Write the text-to-video transformer with the LoRA above merged into it at strength 1."""
    tensors, factors = _text_to_video(seed), _control_factors(seed)
    patches = tensors["patch_embedding.weight"]
    room = patches.new_zeros(len(patches), _CONTROL_CHANNELS - patches.shape[1], *patches.shape[2:])
    tensors["patch_embedding.weight"] = torch.cat([patches, room], dim=1)
    for key, down in factors.items():
        if ".lora_A." in key:
            up = factors[key.replace(".lora_A.", ".lora_B.")]
            name = key.removeprefix("diffusion_model.").replace(".lora_A.", ".")
            tensors[name] = tensors[name] + (up.flatten(1) @ down.flatten(1)).reshape(tensors[name].shape)
    save(tensors, path)


def write_uni3c(path: Path, seed: int) -> None:
    """Write a Uni3C controlnet for the tiny transformers."""
    save(fill.tensors(families.uni3c(families.Uni3CSize()), file="uni3c", seed=seed), path)


def write_wan22_vae(path: Path, seed: int) -> None:
    """Write a Wan 2.2 VAE."""
    save(fill.tensors(vae22.wan22_vae(vae22.VAE22Size()), file="vae22", seed=seed), path)


def write_vision(path: Path, seed: int, *, is_hf: bool, dtype: torch.dtype) -> None:
    """Write a CLIP image encoder; the two key styles hold the same values."""
    tensors = fill.tensors(vision.vision(vision.VisionSize()), file="clip", seed=seed, dtype=dtype)
    save(vision.to_hf(tensors) if is_hf else tensors, path)


def _text_to_video(seed: int) -> dict[str, Tensor]:
    return fill.tensors(dit(DiTSize()), file="dit", seed=seed)


def _control_factors(seed: int) -> dict[str, Tensor]:
    shapes = families.control_lora(DiTSize(), in_channels=_CONTROL_CHANNELS)
    return fill.tensors(shapes, file="control_lora", seed=seed)


def _transformer(
    name: str, *additions: Addition, channels: tuple[int, int] = (16, 16), clip: bool = False
) -> tuple[tuple[str, str], Write]:
    """A row of the table: `channels` are those in and out, `clip` is whether it has the image branch."""
    place = "diffusion_models", f"tiny_{name}_fp32.safetensors"
    size = DiTSize(in_channels=channels[0], out_channels=channels[1], has_image_branch=clip)
    return place, partial(write_dit, tag=name, size=size, additions=additions)


# By group, then by (model folder, file name).
MAKERS: Mapping[str, Mapping[tuple[str, str], Write]] = {
    IMAGE: {
        **dict(
            (
                _transformer("wan21_i2v_480", channels=(36, 16), clip=True),
                _transformer("wan21_flf2v", families.first_and_last_frame, channels=(36, 16), clip=True),
                _transformer("wan22_t2v_high"),
                _transformer("wan22_t2v_low"),
                _transformer("wan22_i2v_high", channels=(36, 16)),
                _transformer("wan22_i2v_low", channels=(36, 16)),
                _transformer("wan22_ti2v_5b", channels=(48, 48)),
            )
        ),
        ("vae", "tiny_wan22_vae_fp32.safetensors"): write_wan22_vae,
        ("clip_vision", "tiny_open-clip-xlm-roberta_visual_fp32.safetensors"): partial(
            write_vision, is_hf=False, dtype=torch.float32
        ),
        ("clip_vision", "tiny_clip_vision_h_fp16.safetensors"): partial(
            write_vision, is_hf=True, dtype=torch.float16
        ),
    },
    FUN: dict(
        (
            _transformer("wan21_fun_inp", channels=(36, 16), clip=True),
            _transformer("wan22_fun_inp_high", channels=(36, 16)),
            _transformer("wan22_fun_inp_low", channels=(36, 16)),
            _transformer("wan22_fun_inp_5b", channels=(100, 48)),
            _transformer("wan21_fun_control", channels=(48, 16), clip=True),
            _transformer("wan21_fun_control_ref", families.reference, channels=(48, 16), clip=True),
            _transformer("wan22_fun_control", families.reference, channels=(52, 16)),
            _transformer("wan22_fun_control_5b", families.reference, channels=(148, 48)),
            _transformer("wan21_fun_camera", families.camera, channels=(32, 16), clip=True),
            _transformer("wan22_fun_camera", families.camera, channels=(36, 16)),
            _transformer("wan22_fun_camera_5b", families.camera, channels=(100, 48)),
        )
    ),
    CONTROL_LORA: {
        ("loras", "tiny_wan21_control_lora_fp32.safetensors"): write_control_lora,
        (
            "diffusion_models",
            "tiny_wan21_control_lora_merged_fp32.safetensors",
        ): write_merged_control_lora,
    },
    PHANTOM: dict((_transformer("wan21_phantom"),)),
    VACE: {
        ("diffusion_models", "tiny_vace_module_fp32.safetensors"): partial(write_vace, is_full=False),
        ("diffusion_models", "tiny_wan21_vace_full_fp32.safetensors"): partial(write_vace, is_full=True),
    },
    UNI3C: {("controlnet", "tiny_uni3c_controlnet_fp32.safetensors"): write_uni3c},
}
