"""Number formats of transformer files: what a file is stored in, and whether this version reads it.

The one place to extend for quantised transformers: teach `read_by_this_version` the format's name.
"""

import json
from enum import Enum

import torch

from ...errors import ModelFileError
from ..checkpoint import Checkpoint

FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
QUANTIZATION_METADATA = "_quantization_metadata"
_SCALE_NAMES = (".scale_weight", ".weight_scale", ".scale_input", ".input_scale", ".weight_scale_2")


class StorageFormat(Enum):
    """How the large matrices of a file are stored; the value is its name in messages."""

    DENSE = "dense"
    FP8_PLAIN = "fp8 without scales"
    FP8_SCALED = "scaled fp8 (scale_weight)"
    COMFY_QUANT = "ComfyUI quantisation (comfy_quant)"
    QUANTO = "quanto int8"
    INTEGER = "an integer format"


def storage_format(checkpoint: Checkpoint) -> StorageFormat:
    """The number format of a file, from its header."""
    keys = list(checkpoint)
    if any(key.endswith(".comfy_quant") for key in keys) or QUANTIZATION_METADATA in checkpoint.metadata:
        return StorageFormat.COMFY_QUANT
    if any(key.endswith((".weight._data", ".weight._scale", ".weight_qtype")) for key in keys):
        return StorageFormat.QUANTO
    matrices = _matrix_dtypes(checkpoint)
    if any(not dtype.is_floating_point for dtype in matrices):
        return StorageFormat.INTEGER
    if any(key.split(".")[-1] == "scaled_fp8" or key.endswith(_SCALE_NAMES) for key in keys):
        return StorageFormat.FP8_SCALED
    return StorageFormat.FP8_PLAIN if matrices & set(FP8_DTYPES) else StorageFormat.DENSE


def _matrix_dtypes(checkpoint: Checkpoint) -> set[torch.dtype]:
    return {
        checkpoint.dtype(key)
        for key in checkpoint
        if key.endswith(".weight") and len(checkpoint.shape(key)) > 1
    }


def format_name(checkpoint: Checkpoint) -> str:
    """The format as messages name it, with the exact kind where the file says it."""
    found = storage_format(checkpoint)
    kinds: set[str] = set()
    if found is StorageFormat.COMFY_QUANT:
        kinds = _comfy_formats(checkpoint)
    elif found is not StorageFormat.DENSE:
        kinds = {
            str(dtype).removeprefix("torch.") for dtype in _matrix_dtypes(checkpoint) if dtype.itemsize == 1
        }
    return f"{found.value}: {', '.join(sorted(kinds))}" if kinds else found.value


def read_by_this_version(found: StorageFormat) -> bool:
    """Whether transformers stored like this can be loaded."""
    return found is StorageFormat.DENSE


def require_readable(checkpoint: Checkpoint) -> None:
    """Refuse a transformer file whose format this version does not read, by the format's name."""
    if not read_by_this_version(storage_format(checkpoint)):
        raise ModelFileError(
            checkpoint.path,
            f"is quantised, stored as {format_name(checkpoint)}; quantised transformers are not available "
            "in this version of the pack; use the bf16 or fp16 file of the same model",
        )


def _comfy_formats(checkpoint: Checkpoint) -> set[str]:
    """Names of the per-layer formats; they differ in a mixed file."""
    texts = [
        checkpoint.tensor(key).contiguous().numpy().tobytes()
        for key in checkpoint
        if key.endswith(".comfy_quant") and checkpoint.dtype(key) == torch.uint8
    ]
    texts.append(checkpoint.metadata.get(QUANTIZATION_METADATA, "{}").encode())
    formats: set[str] = set()
    for text in texts:
        try:
            content = json.loads(text)
        except ValueError:
            continue
        layers = content.get("layers", {"": content}) if isinstance(content, dict) else {}
        for layer in layers.values() if isinstance(layers, dict) else ():
            if isinstance(layer, dict) and "format" in layer:
                formats.add(str(layer["format"]))
    return formats
