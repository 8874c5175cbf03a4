"""PyTorch files (.pt, .pth, .ckpt, .bin): tensors only, never code.

Everything goes through `torch.load(weights_only=True)`; what it refuses stays refused.
"""

import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ModelFileError

ZIP_MAGIC = b"PK\x03\x04"
# Trainers wrap the state dict in one of these; the first that leads to tensors is taken.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "params_ema",
    "params",
    "generator",
)
# What torch's parsers raise on a file that ends early or was never one of theirs.
_UNREADABLE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    struct.error,
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The flat state dict of a PyTorch file; memory-mapped where its format (zip, torch >= 1.6) allows it.

    Raises:
        ModelFileError: a pickle that holds more than tensors, a damaged file, a file without tensors.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    try:
        with torch.inference_mode(False):  # as for safetensors: ordinary tensors wherever this runs
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ModelFileError(path, _refusal(str(error))) from error
    except MemoryError as error:
        raise ModelFileError(path, "does not fit into memory; use a .safetensors file") from error
    except _UNREADABLE as error:
        raise ModelFileError(
            path, "is cut off or not a PyTorch file; download it again, or use a .safetensors file"
        ) from error
    tensors = _unwrap(content)
    if not tensors:
        raise ModelFileError(path, "holds no tensors, so it is not a model file; use a .safetensors file")
    return tensors


def _refusal(message: str) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"function (?:`|<\w+ )?([\w.]+)", message)
    what = f"wants to run code ({named.group(1)})" if named else "wants to run code, or is damaged"
    return (
        f"is a pickle that {what}; weights_only loading refused it and nothing was run. "
        "Use a .safetensors file of this model"
    )


def _unwrap(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for name in WRAPPERS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and (tensors := _unwrap(inner)):
            return tensors
    return {
        key: value.detach()
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided
    }
