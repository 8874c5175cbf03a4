"""Which format each layer gets from its file, and what is decoded while loading."""

import importlib.util

import pytest
import torch
from comfyui_wanvideo.tools.tiny import formats as tiny
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.formats import DENSE, storage
from comfyui_wanvideo.wanvideo.weights.formats.expect import decode, expect_formats
from comfyui_wanvideo.wanvideo.weights.formats.kitchen import (
    ConvRotInt4Format,
    ConvRotInt8Format,
    Int8Format,
    Mxfp8Format,
    Nvfp4Format,
)
from comfyui_wanvideo.wanvideo.weights.formats.scaled import ScaledFormat
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from torch import nn

from .reference import dequantised

FP8 = torch.float8_e4m3fn
ROWS, COLUMNS = 64, 256


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = WanLinear(COLUMNS, ROWS)
        self.second = WanLinear(COLUMNS, ROWS)


def a_weight(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 10


def file_of(**layers):
    """Keys and tensors of layers that have a bias as well."""
    tensors = {f"{layer}.{name}": part for layer, parts in layers.items() for name, part in parts.items()}
    return {**tensors, **{f"{layer}.bias": torch.zeros(ROWS) for layer in layers}}


def dense():
    return {"weight": a_weight(ROWS, COLUMNS)}


@pytest.fixture
def expected(make_file):
    """A net on the meta device that was told of a file, and the keys that were used up."""

    def make(**layers):
        with torch.device("meta"):
            net = Net()
        return net, expect_formats(net, make_file(file_of(**layers)))

    return make


@pytest.fixture
def refusal(expected):
    def ask(layer):
        with pytest.raises(ModelFileError) as caught:
            expected(first=layer, second=dense())
        return str(caught.value)

    return ask


WEIGHT = a_weight(ROWS, COLUMNS)


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (tiny.scaled_fp8(WEIGHT, name="weight_scale"), ScaledFormat()),
        (tiny.scaled_fp8(WEIGHT, blocks=4, name="weight_scale"), ScaledFormat()),
        (tiny.comfy_fp8(WEIGHT), ScaledFormat()),
        (tiny.comfy_fp8(WEIGHT, dtype=torch.float8_e5m2), ScaledFormat()),
        (tiny.int8(WEIGHT), Int8Format()),
        (tiny.int8_convrot(WEIGHT, group=64), ConvRotInt8Format(group_size=64)),
        (tiny.mxfp8(WEIGHT), Mxfp8Format(shape=(ROWS, COLUMNS))),
        (tiny.nvfp4(WEIGHT), Nvfp4Format(shape=(ROWS, COLUMNS))),
        (tiny.convrot_w4a4(WEIGHT), ConvRotInt4Format(group_size=256)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_layer_gets_the_format_of_its_weight(expected, layer, form):
    net, _ = expected(first=dense(), second=layer)
    assert (net.first.format, net.second.format) == (DENSE, form)


def test_plain_fp8_is_dense(expected):
    net, _ = expected(first=tiny.plain_fp8(WEIGHT), second=dense())
    assert net.first.format is DENSE


def test_the_tensors_expected_are_those_of_the_file_with_scales_in_float32(expected):
    layer = {**tiny.comfy_fp8(WEIGHT), "weight_scale": torch.ones(ROWS, 1, dtype=torch.bfloat16)}
    net, _ = expected(first=layer, second=dense())
    found = {name: (tuple(part.shape), part.dtype) for name, part in net.first.stored().items()}
    assert found == {"weight": ((ROWS, COLUMNS), FP8), "weight_scale": ((ROWS, 1), torch.float32)}


def test_what_lies_beside_a_weight_is_used_up(expected):
    layer = {**tiny.comfy_fp8(WEIGHT), "input_scale": torch.ones(())}
    _, used_up = expected(first=layer, second=dense())
    assert used_up == {"first.comfy_quant", "first.input_scale"}


def test_a_marker_of_two_elements_asks_for_full_precision(make_file):
    tensors = {**file_of(first=tiny.scaled_fp8(WEIGHT, name="weight_scale"), second=dense())}
    with torch.device("meta"):
        net = Net()
    expect_formats(net, make_file({**tensors, "scaled_fp8": torch.zeros(2, dtype=FP8)}))
    assert net.first.format == ScaledFormat(is_exact=True)


def test_a_described_layer_can_ask_for_full_precision(expected):
    described = tiny._description(format="nvfp4", full_precision_matrix_mult=True)
    net, _ = expected(first={**tiny.nvfp4(WEIGHT), **described}, second=dense())
    assert net.first.format == Nvfp4Format(shape=(ROWS, COLUMNS), has_product=False)


@pytest.mark.parametrize("shape", [(3,), (ROWS, 3), (1, ROWS), (ROWS, 4, 2), (ROWS - 1, 1)], ids=str)
def test_a_wrong_shape_of_scales_is_refused_with_both_shapes(refusal, shape):
    message = refusal({**tiny.scaled_fp8(WEIGHT, name="weight_scale"), "weight_scale": torch.ones(shape)})
    assert f"first.weight_scale has shape {list(shape)}, expected [] or [1]" in message
    assert f"for a weight of shape [{ROWS}, {COLUMNS}]" in message


@pytest.mark.parametrize("make", [tiny.mxfp8, tiny.nvfp4])
def test_a_wrong_shape_of_block_scales_is_refused_with_both_shapes(refusal, make):
    good = make(WEIGHT)
    wrong = {**good, "weight_scale": good["weight_scale"][:64].contiguous()}
    found, wanted = [64, good["weight_scale"].shape[1]], list(good["weight_scale"].shape)
    assert f"first.weight_scale has shape {found}, expected {wanted}" in refusal(wrong)


@pytest.mark.parametrize("make", [tiny.comfy_fp8, tiny.int8, tiny.mxfp8, tiny.nvfp4, tiny.convrot_w4a4])
def test_a_weight_of_another_shape_is_refused_with_both_shapes(refusal, make):
    message = refusal(make(a_weight(ROWS, 2 * COLUMNS)))
    assert "first.weight has shape" in message
    assert ", expected [64, " in message


@pytest.mark.parametrize(
    ("make", "name"),
    [(tiny.int8, "weight_scale"), (tiny.mxfp8, "weight_scale"), (tiny.nvfp4, "weight_scale_2")],
)
def test_a_missing_scale_is_named(refusal, make, name):
    layer = {key: part for key, part in make(WEIGHT).items() if key != name}
    assert f"first has no {name}, which its format needs" in refusal(layer)


def test_an_unknown_format_is_named(refusal):
    message = refusal({**dense(), **tiny._description(format="int3_spiral")})
    assert "first is stored in the ComfyUI format 'int3_spiral'" in message


def test_a_weight_of_another_type_than_its_format_is_refused(refusal):
    message = refusal({**tiny.comfy_fp8(WEIGHT), "weight": torch.ones(ROWS, COLUMNS)})
    assert "first has weight of type float32, expected float8_e4m3fn" in message


@pytest.mark.parametrize("group", [32, 48, 1024])
def test_a_group_size_that_cannot_be_rotated_is_refused(refusal, group):
    described = tiny._description(format="convrot_w4a4", convrot_groupsize=group)
    message = refusal({**tiny.convrot_w4a4(WEIGHT), **described})
    assert (
        f"first has convrot_groupsize {group}, expected a power of 4 that divides its 256 columns" in message
    )


def test_a_missing_package_is_named(refusal, monkeypatch):
    monkeypatch.setattr(storage, "find_spec", lambda _name: None)
    assert "needs the Python package comfy_kitchen" in refusal(tiny.mxfp8(WEIGHT))


def test_int8_without_rotation_needs_no_package(expected, monkeypatch):
    layer = tiny.int8(WEIGHT)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(storage, "find_spec", lambda _name: None)
    net, _ = expected(first=layer, second=dense())
    assert net.first.format == Int8Format()


# tensors that are no linear weight


@pytest.mark.parametrize("make", [tiny.comfy_fp8, tiny.int8, tiny.mxfp8, tiny.nvfp4, tiny.convrot_w4a4])
def test_a_table_in_any_format_is_decoded(make_file, make):
    layer = make(WEIGHT)
    checkpoint = make_file({f"table.{name}": part for name, part in layer.items()})
    expected = dequantised(layer, (ROWS, COLUMNS))
    found = decode(checkpoint, "table.weight", torch.float32).double()
    assert (found - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("scale_shape", [(), (8,)], ids=str)
def test_a_convolution_stored_as_scaled_fp8_is_decoded(make_file, scale_shape):
    kernel, scale = a_weight(8, 16, 1, 2, 2).to(FP8), torch.rand(scale_shape) + 0.5
    checkpoint = make_file({"conv.weight": kernel, "conv.weight_scale": scale})
    expected = kernel.float() * (scale if not scale_shape else scale[:, None, None, None, None])
    torch.testing.assert_close(decode(checkpoint, "conv.weight", torch.float32), expected, rtol=1e-6, atol=0)


def test_a_plain_tensor_is_cast(make_file):
    norm = a_weight(16).to(FP8)
    checkpoint = make_file({"norm.weight": norm})
    assert torch.equal(decode(checkpoint, "norm.weight", torch.float32), norm.float())


def test_a_dense_tensor_in_its_dtype_is_a_view_on_the_file(make_file):
    checkpoint = make_file({"norm.weight": a_weight(16)})
    found = decode(checkpoint, "norm.weight", torch.float32)
    assert found.data_ptr() == checkpoint.tensor("norm.weight").data_ptr()
