"""What a file is stored as: names for messages, and a refusal for what this version does not read."""

from __future__ import annotations

import torch

from ...errors import ModelFileError
from ..checkpoint import Checkpoint, layer_format
from ..layer_formats import LAYER_FORMAT
from .storage import COMFY_FORMATS

_QUANTO_ENDINGS = (".weight._data", ".weight._scale", ".weight_qtype")
_FP8_NAMES = ("float8_e4m3fn", "float8_e5m2")
_SCALED = "scaled "


def format_name(checkpoint: Checkpoint, key: str) -> str:
    """What one weight is stored as: "bfloat16", "float8_e4m3fn", "scaled float8_e5m2", "nvfp4", "Q4_K", ...

    Args:
        checkpoint: with canonical key names.
        key: of a weight in it, ending in ".weight".
    """
    if checkpoint.encoding(key):
        return checkpoint.encoding(key)
    layer = key.removesuffix(".weight")
    scaled = _SCALED if f"{layer}.weight_scale" in checkpoint else ""
    if f"{layer}.{LAYER_FORMAT}" not in checkpoint:
        name = _dtype_name(checkpoint.dtype(key))
        return f"{scaled}{name}" if name in _FP8_NAMES else name
    described = layer_format(checkpoint, layer)
    if described.name in _FP8_NAMES:
        return f"{scaled}{described.name}"
    return f"{described.name} with convrot" if described.convrot else described.name


def block_formats(checkpoint: Checkpoint) -> frozenset[str]:
    """What the matrices of the transformer blocks are stored as."""
    return frozenset(
        format_name(checkpoint, key) for key in checkpoint if "blocks." in key and _is_matrix(checkpoint, key)
    )


def is_dense(name: str) -> bool:
    """Whether a format holds plain numbers of 16 bits or more."""
    return name in ("float64", "float32", "float16", "bfloat16")


def is_scaled_fp8(name: str) -> bool:
    """Whether a format is fp8 with scales."""
    return name.startswith(_SCALED)


def fp8_dtype_name(name: str) -> str | None:
    """The fp8 type of a format with or without scales, None for other formats."""
    plain = name.removeprefix(_SCALED)
    return plain if plain in _FP8_NAMES else None


def require_readable(checkpoint: Checkpoint) -> None:
    """Refuse a transformer file in a format this version does not read, by the format's name.

    Raises:
        ModelFileError: a quanto file, or integers without a description of what they mean.
    """
    if any(key.endswith(_QUANTO_ENDINGS) for key in checkpoint):
        raise _not_read(checkpoint, "quanto int8")
    integers = {
        key: checkpoint.dtype(key)
        for key in checkpoint
        if _is_matrix(checkpoint, key)
        and not checkpoint.dtype(key).is_floating_point
        and not checkpoint.encoding(key)
        and f"{key.removesuffix('.weight')}.{LAYER_FORMAT}" not in checkpoint
    }
    if integers:
        key, dtype = next(iter(integers.items()))
        raise _not_read(checkpoint, f"an integer format ({key}: {_dtype_name(dtype)})")
    layers = (key.removesuffix(f".{LAYER_FORMAT}") for key in checkpoint if key.endswith(f".{LAYER_FORMAT}"))
    unknown = {layer_format(checkpoint, layer).name for layer in layers} - set(COMFY_FORMATS)
    if unknown:
        listed = ", ".join(sorted(unknown))
        raise _not_read(checkpoint, f"the ComfyUI format {listed} (read are {', '.join(COMFY_FORMATS)})")


def _not_read(checkpoint: Checkpoint, stored_as: str) -> ModelFileError:
    return ModelFileError(
        checkpoint.path,
        f"is quantised, stored as {stored_as}, which this version of the pack does not read; use the bf16, "
        "fp8 or GGUF file of the same model",
    )


def _is_matrix(checkpoint: Checkpoint, key: str) -> bool:
    return key.endswith(".weight") and len(checkpoint.shape(key)) > 1


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
