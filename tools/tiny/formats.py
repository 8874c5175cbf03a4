"""Tiny safetensors files in the storage formats users own, apart from GGUF.

The matrices of the blocks are quantised, everything else keeps 16 or 32 bits. ComfyUI's formats but fp8 are
quantised by the package comfy_kitchen, which writes them for ComfyUI as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import fill, specs, spiece

Layer = dict[str, Tensor]  # what stands in a file for one weight, by the last part of its key
Quantise = Callable[[Tensor], Layer]

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
CONVROT_GROUP = 256
BLOCK = 64  # columns that share a scale
_QUERY = "blocks.0.self_attn.q"


def plain_fp8(weight: Tensor, *, dtype: torch.dtype = E4M3) -> Layer:
    """The numbers cast, without scales."""
    return {"weight": weight.to(dtype)}


def scaled_fp8(
    weight: Tensor, *, dtype: torch.dtype = E4M3, blocks: int = 0, name: str = "scale_weight"
) -> Layer:
    """fp8 with scales.

    Args:
        weight: ``[out, in]``.
        dtype: e4m3fn or e5m2.
        blocks: scales per row; 0 is one scale for the matrix.
        name: of the scales: "scale_weight" in older files, "weight_scale" in ComfyUI's.
    """
    parts = weight.reshape(len(weight), blocks, -1) if blocks else weight.reshape(1, 1, -1)
    scale = parts.abs().amax(-1, keepdim=True) / torch.finfo(dtype).max
    stored = (parts / scale).to(dtype).reshape(weight.shape)
    shape = () if not blocks else (len(weight), 1) if blocks == 1 else (len(weight), blocks, 1)
    return {"weight": stored, name: scale.reshape(shape)}


def comfy_fp8(weight: Tensor, *, dtype: torch.dtype = E4M3) -> Layer:
    """ComfyUI's fp8 with a description of the layer."""
    described = _description(format=str(dtype).removeprefix("torch."))
    return {**scaled_fp8(weight, dtype=dtype, name="weight_scale"), **described}


def int8(weight: Tensor) -> Layer:
    """ComfyUI's int8_tensorwise."""
    from comfy_kitchen import quantize_int8_tensorwise

    stored, scale = quantize_int8_tensorwise(weight)
    return {"weight": stored, "weight_scale": scale, **_description(format="int8_tensorwise")}


def int8_convrot(weight: Tensor, *, group: int = CONVROT_GROUP) -> Layer:
    """ComfyUI's int8_tensorwise of a rotated matrix, a scale per row."""
    import comfy_kitchen  # noqa: F401  registers the operation below

    stored, scale = torch.ops.comfy_kitchen.quantize_int8_convrot_weight(weight, group)
    described = _description(format="int8_tensorwise", convrot=True, convrot_groupsize=group)
    return {"weight": stored, "weight_scale": scale, **described}


def mxfp8(weight: Tensor) -> Layer:
    """ComfyUI's mxfp8; the scales as bytes, as ComfyUI writes them."""
    from comfy_kitchen import quantize_mxfp8

    stored, scale = quantize_mxfp8(weight, pad_32x=True)
    return {"weight": stored, "weight_scale": scale.view(torch.uint8), **_description(format="mxfp8")}


def nvfp4(weight: Tensor) -> Layer:
    """ComfyUI's nvfp4."""
    from comfy_kitchen import quantize_nvfp4

    whole = weight.abs().amax() / (448.0 * 6.0)
    stored, scale = quantize_nvfp4(weight, whole, pad_16x=True)
    described = _description(format="nvfp4")
    return {"weight": stored, "weight_scale": scale, "weight_scale_2": whole, **described}


def convrot_w4a4(weight: Tensor, *, group: int = CONVROT_GROUP) -> Layer:
    """ComfyUI's convrot_w4a4."""
    from comfy_kitchen.tensor import quantize_convrot_w4a4_weight

    stored, scale = quantize_convrot_w4a4_weight(weight, group)
    return {
        "weight": stored,
        "weight_scale": scale,
        **_description(format="convrot_w4a4", convrot_groupsize=group),
    }


def mixed(key: str) -> Quantise | None:
    """A different format for each kind of layer; None keeps bfloat16."""
    for part, quantise in (
        ("self_attn.q", scaled_fp8),
        ("self_attn.k", comfy_fp8),
        ("self_attn.v", nvfp4),
        ("self_attn.o", partial(plain_fp8, dtype=E5M2)),
        ("cross_attn.q", int8),
        ("cross_attn.k", mxfp8),
        ("ffn.0", convrot_w4a4),
        ("ffn.2", int8_convrot),
    ):
        if f".{part}." in key:
            return quantise
    return None


DIT_FORMATS: Mapping[str, Quantise] = {
    "fp8_e4m3fn": plain_fp8,
    "fp8_e5m2": partial(plain_fp8, dtype=E5M2),
    "fp8_scaled": scaled_fp8,
    "fp8_scaled_rows": partial(scaled_fp8, blocks=1),
    "fp8_scaled_blocks": partial(scaled_fp8, blocks=256 // BLOCK),
    "fp8_e5m2_scaled": partial(scaled_fp8, dtype=E5M2),
    "comfy_fp8": comfy_fp8,
    "comfy_fp8_e5m2": partial(comfy_fp8, dtype=E5M2),
    "comfy_int8": int8,
    "comfy_int8_convrot": int8_convrot,
    "comfy_mxfp8": mxfp8,
    "comfy_nvfp4": nvfp4,
    "comfy_convrot_w4a4": convrot_w4a4,
}


def quantised(
    weights: Mapping[str, Tensor], quantise_of: Callable[[str], Quantise | None]
) -> dict[str, Tensor]:
    """A file's tensors with the matrices of its blocks quantised, the others as converters leave them.

    Args:
        weights: float32, by official name.
        quantise_of: the format of a matrix by its key; None keeps bfloat16.
    """
    tensors: dict[str, Tensor] = {}
    has_marker = False
    for key, weight in weights.items():
        if not is_quantised(key, weight):
            is_precise = weight.ndim == 1 or "modulation" in key or "patch_embedding" in key
            tensors[key] = weight if is_precise else weight.half()
            continue
        quantise = quantise_of(key)
        layer = {"weight": weight.bfloat16()} if quantise is None else quantise(weight)
        has_marker = has_marker or "scale_weight" in layer
        tensors.update({f"{key.removesuffix('weight')}{name}": part for name, part in layer.items()})
    if has_marker:
        tensors["scaled_fp8"] = torch.zeros(1, dtype=E4M3)
    return tensors


def is_quantised(key: str, weight: Tensor) -> bool:
    """Whether a weight is a matrix of a block."""
    is_linear = key.startswith("blocks.") and key.endswith(".weight") and weight.ndim == 2
    return is_linear and "pos_embedding" not in key


def write_dit(
    path: Path,
    seed: int,
    *,
    quantise_of: Callable[[str], Quantise | None],
    in_metadata: bool = False,
    size: specs.DiTSize | None = None,
) -> None:
    """Write a text-to-video transformer, the values those of the other tiny files before quantising.

    Args:
        path: the file.
        seed: of all values.
        quantise_of: the format of a matrix by its key.
        in_metadata: write the descriptions of the layers into the header instead of tensors.
        size: sizes, a multiple of 256 in width.
    """
    weights = fill.tensors(specs.dit(size or specs.DiTSize()), file="dit", seed=seed)
    tensors = quantised(weights, quantise_of)
    metadata = {"format": "pt"}
    if in_metadata:
        texts = {key: tensors.pop(key) for key in list(tensors) if key.endswith(".comfy_quant")}
        layers = {
            key.removesuffix(".comfy_quant"): json.loads(bytes(text.tolist())) for key, text in texts.items()
        }
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    save_file(tensors, path, metadata)


def write_umt5(path: Path, seed: int, *, quantise: Quantise) -> None:
    """Write a text encoder under transformers' names with its tokenizer."""
    weights = fill.tensors(specs.umt5(specs.UMT5Size()), file="umt5", seed=seed)
    tensors = {
        specs.umt5_hf_name(key) if "." in key else key: tensor
        for key, tensor in quantised(weights, lambda _key: quantise).items()
    }
    save_file({**tensors, "spiece_model": spiece.as_tensor(spiece.train())}, path)


def write_shards(path: Path, seed: int, *, is_complete: bool = True) -> None:
    """Write a transformer in two files and their index; `path` is the first file.

    Args:
        path: ends in -00001-of-00002.safetensors.
        seed: of all values.
        is_complete: whether the second file is written.
    """
    weights = fill.tensors(specs.dit(specs.DiTSize()), file="dit", seed=seed, dtype=torch.bfloat16)
    second = path.with_name(path.name.replace("-00001-of-", "-00002-of-"))
    half = len(weights) // 2
    places = {key: path if number < half else second for number, key in enumerate(weights)}
    for file in (path, second) if is_complete else (path,):
        save_file({key: tensor for key, tensor in weights.items() if places[key] == file}, file)
    index = {"metadata": {}, "weight_map": {key: file.name for key, file in places.items()}}
    stem = path.name.split("-00001-of-")[0]
    path.with_name(f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="ascii")


def _one_bad_layer(path: Path, seed: int, *, change: Callable[[Layer], Layer]) -> None:
    """A file in which the query of the first block is not as its format wants it."""
    size = specs.DiTSize(layers=1)
    weights = fill.tensors(specs.dit(size), file="bad", seed=seed)
    tensors = quantised(weights, lambda _key: comfy_fp8)
    layer = {name: tensors.pop(f"{_QUERY}.{name}") for name in ("weight", "weight_scale", "comfy_quant")}
    save_file({**tensors, **{f"{_QUERY}.{name}": part for name, part in change(layer).items()}}, path)


def _wrong_scale(layer: Layer) -> Layer:
    return {**layer, "weight_scale": torch.ones(3)}


def _unknown_format(layer: Layer) -> Layer:
    return {**layer, **_description(format="int3_spiral")}


def _undescribed_int8(layer: Layer) -> Layer:
    return {"weight": layer["weight"].float().to(torch.int8)}


def _description(**settings: object) -> Layer:
    text = json.dumps(settings).encode()
    return {"comfy_quant": torch.tensor(list(text), dtype=torch.uint8)}


def _dit_maker(quantise: Quantise, **options: bool) -> Callable[[Path, int], None]:
    return partial(write_dit, quantise_of=lambda _key: quantise, **options)


_T2V = "tiny_wan21_t2v"
MAKERS: Mapping[tuple[str, str], Callable[[Path, int], None]] = {
    **{
        ("diffusion_models", f"{_T2V}_{name}.safetensors"): _dit_maker(quantise)
        for name, quantise in DIT_FORMATS.items()
    },
    ("diffusion_models", f"{_T2V}_comfy_fp8_metadata.safetensors"): _dit_maker(comfy_fp8, in_metadata=True),
    ("diffusion_models", f"{_T2V}_mixed.safetensors"): partial(write_dit, quantise_of=mixed),
    ("diffusion_models", f"{_T2V}_bf16-00001-of-00002.safetensors"): write_shards,
    ("text_encoders", "tiny_umt5_xxl_fp8_scaled.safetensors"): partial(write_umt5, quantise=scaled_fp8),
    ("text_encoders", "tiny_umt5_xxl_comfy_fp8.safetensors"): partial(write_umt5, quantise=comfy_fp8),
}
BAD_MAKERS: Mapping[tuple[str, str], Callable[[Path, int], None]] = {
    ("diffusion_models", "bad_half-00001-of-00002.safetensors"): partial(write_shards, is_complete=False),
    ("diffusion_models", "bad_scale_shape.safetensors"): partial(_one_bad_layer, change=_wrong_scale),
    ("diffusion_models", "bad_comfy_format.safetensors"): partial(_one_bad_layer, change=_unknown_format),
    ("diffusion_models", "bad_int8.safetensors"): partial(_one_bad_layer, change=_undescribed_int8),
}
