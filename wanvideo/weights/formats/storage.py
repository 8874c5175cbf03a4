"""How each weight of a file is stored: its format, the tensors that belong to it, and their shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch

from ...errors import ModelFileError
from ..checkpoint import Checkpoint, layer_format
from ..layer_formats import LAYER_FORMAT, LayerFormat
from .base import DENSE, WeightFormat
from .kitchen import (
    MXFP8_BLOCK,
    NVFP4_BLOCK,
    TILE_ROWS,
    ConvRotInt4Format,
    ConvRotInt8Format,
    Int8Format,
    Mxfp8Format,
    Nvfp4Format,
)
from .scaled import ScaledFormat

COMFY_FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise", "mxfp8", "nvfp4", "convrot_w4a4")
# What may lie beside a weight without being a parameter of the layer.
BESIDE_A_WEIGHT = ("weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale", LAYER_FORMAT)
FULL_PRECISION_MARKER = "scaled_fp8"  # of legacy files; two elements ask for products in full precision
_BYTES = (torch.uint8,)


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Storage:
    """How one weight is stored.

    Args:
        format: what decodes it.
        tensors: of the layer by name; empty when it is dense and keeps the tensors it has.
    """

    format: WeightFormat = DENSE
    tensors: Mapping[str, TensorSpec] = field(default_factory=dict)


def storage_of(checkpoint: Checkpoint, layer: str, shape: tuple[int, int]) -> Storage:
    """How `<layer>.weight` is stored; nothing but headers and ComfyUI's descriptions is read.

    Args:
        checkpoint: with canonical key names; has that weight.
        layer: path of the layer.
        shape: rows and columns of the weight; more dimensions count as columns.

    Raises:
        ModelFileError: an unknown format, or tensors beside the weight that do not fit it.
    """
    key = f"{layer}.weight"
    encoding = checkpoint.encoding(key)
    if encoding:
        from .gguf import gguf_format  # half of the formats, needed by GGUF files only

        _check_weight(checkpoint, key, shape)
        return Storage(gguf_format(encoding), {"weight": _spec(checkpoint, key)})
    if f"{layer}.{LAYER_FORMAT}" in checkpoint:
        return _ComfyLayer(checkpoint, layer, shape).storage()
    if f"{layer}.weight_scale" in checkpoint and checkpoint.dtype(key).is_floating_point:
        is_exact = wants_full_precision(checkpoint)
        return _scaled(checkpoint, layer, shape, ScaledFormat(is_exact=is_exact))
    return Storage()


def wants_full_precision(checkpoint: Checkpoint) -> bool:
    """Whether a legacy file's marker asks for products in full precision."""
    markers = [key for key in checkpoint if key.rsplit(".", 1)[-1] == FULL_PRECISION_MARKER]
    return any(math.prod(checkpoint.shape(key)) == 2 for key in markers)


@dataclass(frozen=True)
class _ComfyLayer:
    """A layer that ComfyUI describes."""

    checkpoint: Checkpoint
    layer: str
    shape: tuple[int, int]

    def storage(self) -> Storage:
        described = layer_format(self.checkpoint, self.layer)
        if described.name in ("float8_e4m3fn", "float8_e5m2"):
            return self._fp8(described)
        makers = {
            "int8_tensorwise": self._int8,
            "mxfp8": self._mxfp8,
            "nvfp4": self._nvfp4,
            "convrot_w4a4": self._convrot_w4a4,
        }
        if described.name not in makers:
            raise ModelFileError(
                self._path,
                f"{self.layer} is stored in the ComfyUI format {described.name!r}, which this version of the "
                f"pack does not read; it reads {', '.join(COMFY_FORMATS)}",
            )
        needs_kitchen = described.name != "int8_tensorwise" or described.convrot
        if needs_kitchen and find_spec("comfy_kitchen") is None:
            raise ModelFileError(
                self._path,
                f"{self.layer} is stored as {described.name}, which needs the Python package comfy_kitchen; "
                "install it (pip install comfy-kitchen) or use a bf16, fp8 or GGUF file of the same model",
            )
        return makers[described.name](described)

    def _fp8(self, described: LayerFormat) -> Storage:
        dtype = getattr(torch, described.name)
        self._expect("weight", None, (dtype,))
        form = ScaledFormat(is_exact=described.full_precision)
        if f"{self.layer}.weight_scale" not in self.checkpoint:
            return Storage(form, self._specs("weight"))
        return _scaled(self.checkpoint, self.layer, self.shape, form)

    def _int8(self, described: LayerFormat) -> Storage:
        rows, _ = self.shape
        self._expect("weight", None, (torch.int8,))
        self._expect("weight_scale", [(), (1,), (1, 1), (rows,), (rows, 1)], None)
        tensors = {**self._specs("weight"), "weight_scale": self._float32("weight_scale")}
        has_product = not described.full_precision
        if not described.convrot:
            return Storage(Int8Format(has_product=has_product), tensors)
        self._check_groups(described)
        form = ConvRotInt8Format(group_size=described.group_size, has_product=has_product)
        return Storage(form, tensors)

    def _convrot_w4a4(self, described: LayerFormat) -> Storage:
        rows, columns = self.shape
        self._check_groups(described)
        if described.linear_dtype not in ("int4", "int8"):
            raise self._problem(f"has linear_dtype {described.linear_dtype!r}, expected int4 or int8")
        self._expect("weight", [(rows, columns // 2)], (torch.int8, torch.uint8))
        self._expect("weight_scale", [(rows,), (rows, 1)], None)
        weight = TensorSpec((rows, columns // 2), torch.int8)
        form = ConvRotInt4Format(
            group_size=described.group_size,
            linear_dtype=described.linear_dtype,
            has_product=not described.full_precision,
        )
        return Storage(form, {"weight": weight, "weight_scale": self._float32("weight_scale")})

    def _mxfp8(self, described: LayerFormat) -> Storage:
        rows, columns = (_up(width, MXFP8_BLOCK) for width in self.shape)
        self._expect("weight", [(rows, columns)], (torch.float8_e4m3fn,))
        scales = _tiles(rows, columns // MXFP8_BLOCK)
        self._expect("weight_scale", [scales], (torch.float8_e8m0fnu, *_BYTES))
        form = Mxfp8Format(shape=self.shape, has_product=not described.full_precision)
        return Storage(form, self._specs("weight", "weight_scale"))

    def _nvfp4(self, described: LayerFormat) -> Storage:
        rows, columns = (_up(width, NVFP4_BLOCK) for width in self.shape)
        self._expect("weight", [(rows, columns // 2)], _BYTES)
        self._expect("weight_scale", [_tiles(rows, columns // NVFP4_BLOCK)], (torch.float8_e4m3fn, *_BYTES))
        self._expect("weight_scale_2", [(), (1,)], None)
        tensors = {**self._specs("weight", "weight_scale"), "weight_scale_2": self._float32("weight_scale_2")}
        if f"{self.layer}.pre_quant_scale" in self.checkpoint:
            self._expect("pre_quant_scale", [self.shape[1:]], None)
            tensors["pre_quant_scale"] = self._float32("pre_quant_scale")
        form = Nvfp4Format(shape=self.shape, has_product=not described.full_precision)
        return Storage(form, tensors)

    def _check_groups(self, described: LayerFormat) -> None:
        size, columns = described.group_size, self.shape[1]
        is_power_of_4 = size >= 4 and size & (size - 1) == 0 and size.bit_length() % 2 == 1
        if not is_power_of_4 or columns % size:
            raise self._problem(
                f"has convrot_groupsize {size}, expected a power of 4 that divides its {columns} columns"
            )

    def _expect(
        self,
        name: str,
        shapes: Sequence[tuple[int, ...]] | None,
        dtypes: tuple[torch.dtype, ...] | None,
    ) -> None:
        """Check a stored tensor. None as shapes is that of the weight, as dtypes every floating one."""
        key = f"{self.layer}.{name}"
        if key not in self.checkpoint:
            raise self._problem(f"has no {name}, which its format needs")
        if shapes is None:
            _check_weight(self.checkpoint, key, self.shape)
        else:
            _check_shape(self.checkpoint, key, shapes)
        dtype = self.checkpoint.dtype(key)
        if not (dtype.is_floating_point if dtypes is None else dtype in dtypes):
            wanted = "a floating type" if dtypes is None else " or ".join(_name(each) for each in dtypes)
            raise self._problem(f"has {name} of type {_name(dtype)}, expected {wanted}")

    def _specs(self, *names: str) -> dict[str, TensorSpec]:
        return {name: _spec(self.checkpoint, f"{self.layer}.{name}") for name in names}

    def _float32(self, name: str) -> TensorSpec:
        return TensorSpec(self.checkpoint.stored_shape(f"{self.layer}.{name}"), torch.float32)

    def _problem(self, text: str) -> ModelFileError:
        return ModelFileError(self._path, f"{self.layer} {text}")

    @property
    def _path(self) -> Path:
        return self.checkpoint.path_of(f"{self.layer}.weight")


def _scaled(checkpoint: Checkpoint, layer: str, shape: tuple[int, int], form: ScaledFormat) -> Storage:
    """A weight with one scale, one per row or one per block of a row."""
    _check_weight(checkpoint, f"{layer}.weight", shape)
    rows, columns = shape
    key = f"{layer}.weight_scale"
    found = checkpoint.stored_shape(key)
    is_per_block = len(found) in (2, 3) and found[0] == rows and found[1] and columns % found[1] == 0
    if not (is_per_block and found[2:] in ((), (1,))):
        listed = [(), (1,), (1, 1), (rows,), (rows, 1)]
        hint = f", or [{rows}, blocks] with blocks dividing {columns}"
        _check_shape(checkpoint, key, listed, more=f"{hint}, for a weight of shape {list(shape)}")
    if not checkpoint.dtype(key).is_floating_point:
        raise ModelFileError(
            checkpoint.path_of(key),
            f"{key} is stored as {_name(checkpoint.dtype(key))}, expected a floating type",
        )
    weight = _spec(checkpoint, f"{layer}.weight")
    return Storage(form, {"weight": weight, "weight_scale": TensorSpec(found, torch.float32)})


def _check_weight(checkpoint: Checkpoint, key: str, shape: tuple[int, int]) -> None:
    """The logical shape of a weight, taken as a matrix."""
    found = checkpoint.shape(key)
    if not found or (found[0], math.prod(found[1:])) != shape:
        raise ModelFileError(
            checkpoint.path_of(key),
            f"{key} has shape {list(found)}, expected {list(shape)}: the wrong shape",
        )


def _check_shape(
    checkpoint: Checkpoint, key: str, shapes: Sequence[tuple[int, ...]], *, more: str = ""
) -> None:
    found = checkpoint.stored_shape(key)
    if found not in shapes:
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise ModelFileError(
            checkpoint.path_of(key), f"{key} has shape {list(found)}, expected {expected}{more}"
        )


def _spec(checkpoint: Checkpoint, key: str) -> TensorSpec:
    return TensorSpec(checkpoint.stored_shape(key), checkpoint.dtype(key))


def _tiles(rows: int, columns: int) -> tuple[int, int]:
    return _up(rows, TILE_ROWS), _up(columns, 4)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
