"""ComfyUI's description of a quantised layer: a JSON text beside the weight, or in the file's metadata.

`<layer>.comfy_quant` is the text as a uint8 tensor. The header metadata `_quantization_metadata` holds the
same texts by layer name; opening a file turns it into tensors of that kind, so that everything behind
(prefixes, the diffusers layout, several files) sees one form. Source: ComfyUI `comfy/ops.py`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelFileError

LAYER_FORMAT = "comfy_quant"
QUANTIZATION_METADATA = "_quantization_metadata"
# The last dimension of these weights holds two numbers in a byte.
TWO_IN_A_BYTE = frozenset({"nvfp4", "convrot_w4a4"})


@dataclass(frozen=True)
class LayerFormat:
    """How one layer is quantised.

    Args:
        name: of the format, as ComfyUI spells it.
        full_precision: the weight is expanded before it is multiplied, whatever the device can do.
        convrot: the columns of the weight are rotated in groups.
        group_size: columns of a rotated group.
        linear_dtype: what a product of 4 bit weights is computed in, "int4" or "int8".
    """

    name: str
    full_precision: bool = False
    convrot: bool = False
    group_size: int = 256
    linear_dtype: str = "int4"


def parse_layer_format(path: Path, layer: str, text: bytes) -> LayerFormat:
    """Read the JSON of one layer.

    Raises:
        ModelFileError: it is not readable or names no format.
    """
    content = _json(text)
    if not isinstance(content, dict) or not isinstance(content.get("format"), str):
        raise ModelFileError(
            path, f"{layer}.{LAYER_FORMAT} does not say how the layer is stored; download it again"
        )
    parameters = content.get("params")
    settings = {**(parameters if isinstance(parameters, dict) else {}), **content}
    group_size = settings.get("convrot_groupsize", 256)
    if not isinstance(group_size, int) or group_size < 1:
        raise ModelFileError(path, f"{layer}.{LAYER_FORMAT} has convrot_groupsize {group_size!r}")
    return LayerFormat(
        name=content["format"],
        full_precision=bool(settings.get("full_precision_matrix_mult", False)),
        convrot=bool(settings.get("convrot", False)),
        group_size=group_size,
        linear_dtype=str(settings.get("linear_dtype", "int4")),
    )


def layers_in(path: Path, metadata: Mapping[str, str]) -> dict[str, object]:
    """Layer name -> description, from the metadata of a file; empty when it has none.

    Raises:
        ModelFileError: the metadata is there and not readable.
    """
    text = metadata.get(QUANTIZATION_METADATA)
    if text is None:
        return {}
    content = _json(text.encode())
    layers = content.get("layers") if isinstance(content, dict) else None
    if not isinstance(layers, dict):
        raise ModelFileError(
            path, f"its {QUANTIZATION_METADATA} cannot be read; the file is damaged, download it again"
        )
    return layers


def merged_metadata(parts: Iterable[tuple[Path, Mapping[str, str]]]) -> dict[str, str]:
    """The metadata of several files as that of one; the first wins, quantised layers are collected."""
    merged: dict[str, str] = {}
    layers: dict[str, object] = {}
    for path, metadata in parts:
        layers = {**layers_in(path, metadata), **layers}
        merged = {**metadata, **merged}
    if layers:
        merged[QUANTIZATION_METADATA] = json.dumps({"layers": layers})
    return merged


def placed(layers: Mapping[str, object], keys: Collection[str]) -> dict[str, bytes]:
    """The texts of `layers` under the keys they would have as tensors.

    Some writers name layers with the prefix of the file's keys, others with another or without one.
    Layers that are not in the file are left out.
    """
    paths = {key.removesuffix(".weight") for key in keys if key.endswith(".weight")}
    by_ending = {ending: path for path in sorted(paths) for ending in _endings(path)}
    texts = {}
    for layer, description in layers.items():
        candidates = [layer, *_endings(layer)]
        path = next((name for name in candidates if name in paths), by_ending.get(layer))
        if path is not None:
            texts[f"{path}.{LAYER_FORMAT}"] = json.dumps(description).encode()
    return texts


def _endings(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]


def _json(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
