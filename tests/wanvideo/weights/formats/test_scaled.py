"""8 bit weights with scales."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.formats.kitchen import Int8Format
from comfyui_wanvideo.wanvideo.weights.formats.scaled import ScaledFormat, apply_scale

from .reference import dequantised

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
ROWS, COLUMNS = 48, 64
SHAPES = [(), (1,), (1, 1), (ROWS,), (ROWS, 1), (ROWS, 4), (ROWS, 4, 1)]


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stored(dtype, scale_shape):
    weight = (numbers(ROWS, COLUMNS) * 20).to(dtype)
    return {"weight": weight, "weight_scale": numbers(*scale_shape, seed=1).abs() / 100 + 1e-3}


@pytest.mark.parametrize("scale_shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [*FP8, torch.int8], ids=str)
def test_every_shape_of_scales_equals_the_formula_in_float64(dtype, scale_shape):
    layer = stored(dtype, scale_shape)
    expected = dequantised(layer, (ROWS, COLUMNS))
    found = ScaledFormat().materialize(layer, torch.float32).double()
    assert (found - expected).abs().max() <= 1e-7 * expected.abs().max()


@pytest.mark.parametrize("compute", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scale_shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [*FP8, torch.int8], ids=str)
def test_in_16_bit_the_product_is_rounded_once(dtype, scale_shape, compute):
    layer = stored(dtype, scale_shape)
    wide = ScaledFormat().materialize(layer, torch.float32)
    assert torch.equal(ScaledFormat().materialize(layer, compute), wide.to(compute))


@pytest.mark.parametrize("compute", FLOATS, ids=str)
@pytest.mark.parametrize("dtype", [*FP8, torch.float32], ids=str)
def test_the_stored_numbers_are_not_changed(dtype, compute):
    layer = stored(dtype, (ROWS,))
    before = layer["weight"].clone()
    ScaledFormat().materialize(layer, compute)
    assert torch.equal(layer["weight"].float(), before.float())


def test_a_weight_without_scale_is_cast():
    weight = numbers(ROWS, COLUMNS).to(torch.float8_e5m2)
    assert torch.equal(ScaledFormat().materialize({"weight": weight}, torch.float32), weight.float())


def test_a_scale_of_a_wide_weight_is_multiplied_in_float32():
    layer = stored(torch.bfloat16, (ROWS,))
    expected = (layer["weight"].float() * layer["weight_scale"][:, None]).bfloat16()
    assert torch.equal(ScaledFormat().materialize(layer, torch.bfloat16), expected)


def test_the_scale_is_applied_in_place():
    matrix = numbers(ROWS, COLUMNS)
    assert apply_scale(matrix, torch.tensor(2.0)) is matrix


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float8_e4m3fn, 0.03), (torch.float8_e5m2, 0.06)], ids=str
)
def test_a_random_matrix_keeps_the_precision_of_fp8(dtype, bound):
    weight = numbers(ROWS, COLUMNS) / 50
    scale = weight.abs().amax(1) / torch.finfo(dtype).max
    layer = {"weight": (weight / scale[:, None]).to(dtype), "weight_scale": scale}
    error = (ScaledFormat().materialize(layer, torch.float32) - weight).norm() / weight.norm()
    assert error < bound


def test_a_random_matrix_keeps_the_precision_of_int8():
    weight = numbers(ROWS, COLUMNS) / 50
    scale = weight.abs().amax() / 127
    layer = {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale}
    error = (Int8Format().materialize(layer, torch.float32) - weight).norm() / weight.norm()
    assert error < 0.012  # steps of amax / 127, errors of half a step at most
