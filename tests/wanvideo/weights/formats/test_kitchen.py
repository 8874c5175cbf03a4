"""ComfyUI's formats that comfy_kitchen decodes."""

from functools import partial

import pytest
import torch
from comfyui_wanvideo.tools.tiny import formats as tiny
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.formats import kitchen
from comfyui_wanvideo.wanvideo.weights.formats.expect import expect_formats
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from safetensors.torch import save_file
from torch import nn

from .reference import dequantised

pytest.importorskip("comfy_kitchen")

FORMATS = {
    "int8": (tiny.int8, 0.02),
    "int8_convrot": (partial(tiny.int8_convrot, group=16), 0.012),
    "mxfp8": (tiny.mxfp8, 0.04),
    "nvfp4": (tiny.nvfp4, 0.11),
    "convrot_w4a4": (partial(tiny.convrot_w4a4, group=64), 0.2),
}
SHAPES = [(64, 64), (160, 192), (300, 64)]  # the last two end inside a tile of 128 rows


def a_weight(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) / 20


@pytest.fixture
def load(tmp_path):
    """A linear layer with the tensors a file has for it."""

    def make(layer, shape):
        save_file(
            {f"net.{name}": part.contiguous() for name, part in layer.items()}, tmp_path / "m.safetensors"
        )
        checkpoint = Checkpoint.open(tmp_path / "m.safetensors")
        with torch.device("meta"):
            module = nn.ModuleDict({"net": WanLinear(shape[1], shape[0], bias=False)})
        expect_formats(module, checkpoint)
        net = module["net"]
        assert isinstance(net, WanLinear)
        stored = {
            name: checkpoint.tensor(f"net.{name}").to(meta.dtype) for name, meta in net.stored().items()
        }
        net.store_as(net.format, stored)
        return net

    return make


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_decoding_equals_the_formula_in_float64(name, shape, load):
    layer = FORMATS[name][0](a_weight(shape))
    expected = dequantised(layer, shape)
    found = load(layer, shape).materialize(torch.float32).double()
    assert (found - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("name", FORMATS)
def test_a_random_matrix_keeps_the_precision_of_the_format(name, load):
    quantise, bound = FORMATS[name]
    weight = a_weight((160, 192))
    found = load(quantise(weight), (160, 192)).materialize(torch.float32)
    assert (found - weight).norm() / weight.norm() < bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_in_16_bit_the_matrix_is_rounded_once(name, dtype, load):
    net = load(FORMATS[name][0](a_weight((160, 192))), (160, 192))
    assert torch.equal(net.materialize(dtype), net.materialize(torch.float32).to(dtype))


@pytest.mark.parametrize("name", FORMATS)
def test_groups_of_rows_give_the_bits_of_the_whole(name, load, monkeypatch):
    net = load(FORMATS[name][0](a_weight((300, 64))), (300, 64))
    whole = net.materialize(torch.float32)
    monkeypatch.setattr(kitchen, "_VALUES_AT_ONCE", 1)
    assert torch.equal(net.materialize(torch.float32), whole)


@pytest.mark.parametrize(("name", "shape"), [("mxfp8", (40, 70)), ("nvfp4", (40, 70))])
def test_padding_is_cut_off(name, shape, load):
    layer = FORMATS[name][0](a_weight(shape))
    found = load(layer, shape).materialize(torch.float32).double()
    expected = dequantised(layer, shape)
    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_factors_of_the_input_are_in_the_columns_of_nvfp4(load):
    factors = torch.linspace(0.5, 2, 64)
    layer = {**tiny.nvfp4(a_weight((64, 64))), "pre_quant_scale": factors}
    expected = dequantised(layer, (64, 64))
    found = load(layer, (64, 64)).materialize(torch.float32).double()
    assert (found - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("kind", ["uint8", "float8"])
@pytest.mark.parametrize(("name", "dtype"), [("mxfp8", "float8_e8m0fnu"), ("nvfp4", "float8_e4m3fn")])
def test_block_scales_may_be_stored_as_bytes(name, dtype, kind, load):
    layer = FORMATS[name][0](a_weight((64, 64)))
    scale_dtype = torch.uint8 if kind == "uint8" else getattr(torch, dtype)
    layer["weight_scale"] = layer["weight_scale"].view(scale_dtype)
    expected = dequantised(layer, (64, 64))
    assert (
        load(layer, (64, 64)).materialize(torch.float32).double() - expected
    ).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("name", FORMATS)
def test_decoding_equals_comfyui_s(name, load, comfyui_path):
    from comfy.quant_ops import QuantizedTensor, get_layout_class
    from comfy_kitchen.backends.eager.svdquant import _INT4_GROUP_SIZE

    layer = FORMATS[name][0](a_weight((160, 192)))
    layout, settings = {
        "int8": ("TensorWiseINT8Layout", {}),
        "int8_convrot": ("TensorWiseINT8Layout", {"convrot": True, "convrot_groupsize": 16}),
        "mxfp8": ("TensorCoreMXFP8Layout", {}),
        "nvfp4": ("TensorCoreNVFP4Layout", {}),
        "convrot_w4a4": (
            "TensorCoreConvRotW4A4Layout",
            {"convrot_groupsize": 64, "quant_group_size": _INT4_GROUP_SIZE},
        ),
    }[name]
    scale = layer["weight_scale"]
    if name == "mxfp8":
        scale = scale.view(torch.float8_e8m0fnu)
    if name == "nvfp4":
        settings, scale = {"block_scale": scale}, layer["weight_scale_2"]
    parameters = get_layout_class(layout).Params(
        scale=scale, orig_dtype=torch.float32, orig_shape=(160, 192), **settings
    )
    theirs = QuantizedTensor(layer["weight"], layout, parameters).dequantize()
    ours = load(layer, (160, 192)).materialize(torch.float32)
    assert (ours - theirs).norm() <= 1e-6 * theirs.norm()
