"""What quantised layers mean, written out in float64 without any of the libraries that decode them."""

import json
import math

import torch
from torch import Tensor

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
HADAMARD_4 = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], dtype=torch.float64)


def dequantised(layer: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """The float64 matrix `[out, in]` of one layer of a file.

    Args:
        layer: its tensors by the last part of their keys.
        shape: rows and columns.
    """
    weight = layer["weight"]
    described = json.loads(bytes(layer["comfy_quant"].tolist())) if "comfy_quant" in layer else {}
    scale = layer.get("weight_scale", layer.get("scale_weight"))
    form = described.get("format", "")
    if form == "mxfp8":
        assert scale is not None
        scales = torch.exp2(unswizzled(scale.view(torch.uint8), weight.shape[1] // 32).double() - 127)
        return per_block(weight.double(), scales)[: shape[0], : shape[1]]
    if form == "nvfp4":
        assert scale is not None
        values = nvfp4_values(weight)
        scales = unswizzled(scale.view(torch.float8_e4m3fn), values.shape[1] // 16).double()
        matrix = per_block(values, scales * layer["weight_scale_2"].double())[: shape[0], : shape[1]]
        return matrix * layer.get("pre_quant_scale", torch.ones(())).double()
    numbers = int4_values(weight) if form == "convrot_w4a4" else weight.double()
    if scale is not None:
        blocks = max(1, scale.numel() // shape[0])
        numbers = per_block(numbers, scale.double().reshape(-1, 1 if scale.numel() == 1 else blocks))
    is_rotated = form == "convrot_w4a4" or described.get("convrot", False)
    return rotated_back(numbers, described["convrot_groupsize"]) if is_rotated else numbers


def per_block(numbers: Tensor, scales: Tensor) -> Tensor:
    """Multiply equal parts of each row by the columns of `scales`."""
    scales = scales[: len(numbers)]
    return (numbers.reshape(len(numbers), scales.shape[1], -1) * scales.unsqueeze(-1)).reshape(numbers.shape)


def unswizzled(tiles: Tensor, columns: int) -> Tensor:
    """Block scales in order: tiles of 128 x 4, in each of which row r is at 16 (r % 32) + 4 (r // 32)."""
    rows, padded = tiles.shape
    flat = tiles.view(torch.uint8).flatten()
    row, column = torch.arange(rows)[:, None], torch.arange(columns)[None]
    tile = (row // 128) * (padded // 4) + column // 4
    inside = 16 * (row % 32) + 4 * (row % 128 // 32) + column % 4
    return flat[512 * tile + inside].view(tiles.dtype)


def nvfp4_values(packed: Tensor) -> Tensor:
    """Two e2m1 numbers of each byte, the first in the high half."""
    halves = torch.stack([packed >> 4, packed & 15], dim=-1).flatten(1).long()
    return torch.tensor(E2M1, dtype=torch.float64)[halves & 7] * torch.where(halves >= 8, -1.0, 1.0)


def int4_values(packed: Tensor) -> Tensor:
    """Two signed numbers of each byte, the first in the low half."""
    halves = torch.stack([packed & 15, packed >> 4 & 15], dim=-1).flatten(1).double()
    return torch.where(halves >= 8, halves - 16, halves)


def rotated_back(matrix: Tensor, group: int) -> Tensor:
    """Undo the rotation of groups of columns by the regular Hadamard matrix, which is its own inverse."""
    rotation = torch.ones(1, 1, dtype=torch.float64)
    while len(rotation) < group:
        rotation = torch.kron(rotation, HADAMARD_4)
    grouped = matrix.reshape(len(matrix), -1, group) @ (rotation / math.sqrt(group))
    return grouped.reshape(matrix.shape)


def dequantised_file(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A file's tensors as float32, each under its own name in `shapes`, without what described them."""
    dense: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        path = key.removesuffix("weight")
        layer = {name[len(path) :]: tensor for name, tensor in tensors.items() if name.startswith(path)}
        is_matrix = key.endswith(".weight") and len(shape) == 2
        dense[key] = dequantised(layer, (shape[0], shape[1])).float() if is_matrix else tensors[key].float()
    return dense
