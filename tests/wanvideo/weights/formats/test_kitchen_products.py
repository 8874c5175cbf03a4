"""Matrix products in ComfyUI's formats; devices that have them are stood in for."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.tools.tiny import formats as tiny
from comfyui_wanvideo.wanvideo.weights.formats import kitchen
from comfyui_wanvideo.wanvideo.weights.formats.kitchen_products import (
    ConvRotInt4Linear,
    Int8Linear,
    Mxfp8Linear,
    Nvfp4Linear,
    product_problem,
)

from .reference import dequantised

comfy_kitchen = pytest.importorskip("comfy_kitchen")

ROWS, COLUMNS, GROUP = 96, 64, 16


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


WEIGHT, X, BIAS = numbers(ROWS, COLUMNS), numbers(7, COLUMNS, seed=1), numbers(ROWS, seed=2)
FORMATS = {
    "int8": (tiny.int8, kitchen.Int8Format(), Int8Linear, 0.02),
    "int8_convrot": (
        lambda weight: tiny.int8_convrot(weight, group=GROUP),
        kitchen.ConvRotInt8Format(group_size=GROUP),
        Int8Linear,
        0.02,
    ),
    "convrot_w4a4": (
        lambda weight: tiny.convrot_w4a4(weight, group=GROUP),
        kitchen.ConvRotInt4Format(group_size=GROUP),
        ConvRotInt4Linear,
        0.2,
    ),
    "mxfp8": (tiny.mxfp8, kitchen.Mxfp8Format(shape=(ROWS, COLUMNS)), Mxfp8Linear, 0.05),
    "nvfp4": (tiny.nvfp4, kitchen.Nvfp4Format(shape=(ROWS, COLUMNS)), Nvfp4Linear, 0.15),
}


def mxfp8_on_a_gpu(a, b, scale_a, scale_b, bias=None, out_dtype=None):
    left = comfy_kitchen.dequantize_mxfp8(a, scale_a, torch.float32)
    return (left @ comfy_kitchen.dequantize_mxfp8(b, scale_b, torch.float32).T).to(out_dtype)


def nvfp4_on_a_gpu(a, b, *, tensor_scale_a, tensor_scale_b, block_scale_a, block_scale_b, out_dtype):
    left = comfy_kitchen.dequantize_nvfp4(a, tensor_scale_a, block_scale_a, torch.float32)
    right = comfy_kitchen.dequantize_nvfp4(b, tensor_scale_b, block_scale_b, torch.float32)
    return (left @ right.T).to(out_dtype)


@pytest.fixture
def device_with_everything(monkeypatch):
    monkeypatch.setattr(kitchen, "product_problem", lambda *_asked: None)
    monkeypatch.setattr(comfy_kitchen, "scaled_mm_mxfp8", mxfp8_on_a_gpu)
    monkeypatch.setattr(comfy_kitchen, "scaled_mm_nvfp4", nvfp4_on_a_gpu)


@pytest.fixture(params=FORMATS)
def case(request, device_with_everything):
    quantise, form, product, bound = FORMATS[request.param]
    layer = quantise(WEIGHT)
    return layer, form.prepare(layer, BIAS, torch.bfloat16), product, bound


def test_the_format_s_own_product_is_used_where_the_device_has_it(case):
    _, product, kind, _ = case
    assert isinstance(product, kind)


def test_the_product_is_within_the_error_of_the_format(case):
    layer, product, _, bound = case
    expected = X.double() @ dequantised(layer, (ROWS, COLUMNS)).T + BIAS.double()
    found = product(X.bfloat16()).double()
    assert (found - expected).norm() / expected.norm() < bound


@pytest.mark.parametrize("shape", [(), (13,), (2, 7), (0,)], ids=str)
def test_any_leading_shape_is_kept(case, shape):
    assert case[1](numbers(*shape, COLUMNS).bfloat16()).shape == (*shape, ROWS)


def test_the_input_is_not_changed(case):
    x = X.bfloat16()
    case[1](x)
    assert torch.equal(x, X.bfloat16())


def test_factors_of_the_input_are_applied_to_it(device_with_everything):
    factors = torch.linspace(0.5, 2, COLUMNS)
    layer = {**tiny.nvfp4(WEIGHT), "pre_quant_scale": factors}
    found = FORMATS["nvfp4"][1].prepare(layer, None, torch.bfloat16)(X.bfloat16()).double()
    expected = X.double() @ dequantised(layer, (ROWS, COLUMNS)).T
    assert (found - expected).norm() / expected.norm() < 0.15


@pytest.mark.parametrize("name", FORMATS)
def test_on_the_processor_the_weight_is_expanded(name):
    quantise, form, _, _ = FORMATS[name]
    layer = quantise(WEIGHT)
    found = form.prepare(layer, BIAS, torch.bfloat16)(X.bfloat16())
    expected = torch.nn.functional.linear(
        X.bfloat16(), form.materialize(layer, torch.bfloat16), BIAS.bfloat16()
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_asks_for_full_precision_gets_it(name, device_with_everything):
    quantise, form, kind, _ = FORMATS[name]
    product = replace(form, has_product=False).prepare(quantise(WEIGHT), BIAS, torch.bfloat16)
    assert not isinstance(product, kind)


@pytest.mark.parametrize(
    ("product", "capability", "has_it"),
    [
        ("int8", (7, 0), False),
        ("int8", (7, 5), True),
        ("mxfp8", (9, 0), False),
        ("mxfp8", (10, 0), True),
        ("nvfp4", (9, 0), False),
        ("nvfp4", (12, 0), True),
    ],
)
def test_a_product_needs_its_compute_capability(monkeypatch, product, capability, has_it):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr("comfy_kitchen.scaled_mm_v2.has_scaled_mm_v2", lambda: True)
    assert (product_problem(product, torch.device("cuda", 0), torch.bfloat16) is None) is has_it


def test_4_bit_products_need_a_kernel_of_the_package(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    found = product_problem("int4", torch.device("cuda", 0), torch.bfloat16)
    assert found == "this installation of comfy_kitchen has no kernel for it"


@pytest.mark.parametrize("product", ["int8", "int4", "mxfp8", "nvfp4"])
def test_fp32_is_never_quantised(product):
    assert product_problem(product, torch.device("cuda", 0), torch.float32) == "the precision is fp32"
