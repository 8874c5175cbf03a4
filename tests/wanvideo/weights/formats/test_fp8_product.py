"""Matrix products in fp8, on the processor, where torch has them for testing."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.formats import fp8_product
from comfyui_wanvideo.wanvideo.weights.formats.fp8_product import (
    ProductReport,
    device_problem,
    layer_problem,
    prepare_fp8,
    quantise,
    quantise_rows,
)
from comfyui_wanvideo.wanvideo.weights.formats.scaled import ScaledFormat

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ROWS, COLUMNS = 48, 64
# Both sides have 3 (e5m2: 2) bits of mantissa; errors of a sum of 64 products average out.
BOUND = {E4M3: 0.05, E5M2: 0.08}


@pytest.fixture
def fp8_device(monkeypatch):
    monkeypatch.setattr(fp8_product, "device_problem", lambda _device: None)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stored(dtype=E4M3, scale_shape=()):
    weight = numbers(ROWS, COLUMNS)
    limit = torch.finfo(dtype).max
    largest = weight.abs().amax(1) if scale_shape else weight.abs().amax()
    scale = (largest / limit).reshape(scale_shape)
    return {"weight": (weight / scale.reshape(-1, 1)).to(dtype), "weight_scale": scale}


def exact(layer, x, bias):
    weight = layer["weight"].double() * layer["weight_scale"].double().reshape(-1, 1)
    return x.double() @ weight.T + bias.double()


def relative_error(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=str)
@pytest.mark.parametrize("scale_shape", [(), (1,), (ROWS,), (ROWS, 1)], ids=str)
def test_the_product_is_within_the_error_of_fp8_inputs(dtype, scale_shape):
    layer, x, bias = (
        stored(dtype, scale_shape if scale_shape != (1,) else ()),
        numbers(7, COLUMNS, seed=1),
        numbers(ROWS),
    )
    layer["weight_scale"] = layer["weight_scale"].reshape(scale_shape)
    found = prepare_fp8(layer, bias, torch.bfloat16)(x.bfloat16())
    assert relative_error(found, exact(layer, x.bfloat16(), bias)) < BOUND[dtype]


def test_rows_of_different_size_keep_their_precision():
    layer = stored(scale_shape=(ROWS,))
    layer["weight_scale"] = layer["weight_scale"] * torch.logspace(-3, 0, ROWS)
    x = numbers(5, COLUMNS, seed=1).bfloat16()
    found, expected = prepare_fp8(layer, None, torch.bfloat16)(x), exact(layer, x, torch.zeros(ROWS))
    assert relative_error(found[:, 0], expected[:, 0]) < 0.1


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_the_scale_of_the_input_follows_its_size(size):
    layer, x = stored(), (numbers(7, COLUMNS, seed=1) * size).bfloat16()
    found = prepare_fp8(layer, None, torch.bfloat16)(x)
    assert relative_error(found, exact(layer, x, torch.zeros(ROWS))) < BOUND[E4M3]


def test_the_input_is_not_changed():
    x = numbers(7, COLUMNS, seed=1).bfloat16() * 1000
    before = x.clone()
    prepare_fp8(stored(), None, torch.bfloat16)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(), (1,), (13,), (2, 7), (2, 3, 5), (0,)], ids=str)
def test_any_leading_shape_is_kept(shape):
    x = numbers(*shape, COLUMNS, seed=1).bfloat16()
    assert prepare_fp8(stored(), None, torch.bfloat16)(x).shape == (*shape, ROWS)


def test_an_input_of_zeros_gives_the_bias():
    bias = numbers(ROWS).bfloat16()
    found = prepare_fp8(stored(), bias, torch.bfloat16)(torch.zeros(3, COLUMNS, dtype=torch.bfloat16))
    assert torch.equal(found, bias.expand(3, -1))


def test_a_slice_of_a_tensor_is_multiplied_like_its_copy():
    x, product = numbers(9, 2 * COLUMNS, seed=1).bfloat16(), prepare_fp8(stored(), None, torch.bfloat16)
    assert torch.equal(product(x[:, ::2]), product(x[:, ::2].contiguous()))


def test_each_row_gets_its_own_scale():
    x = numbers(4, COLUMNS) * torch.tensor([[1e-3], [1.0], [1e2], [0.0]])
    quantised, scale = quantise_rows(x)
    assert quantised.float().abs().amax(1).tolist() == [448.0, 448.0, 448.0, 0.0]
    assert relative_error(quantised.float() * scale, x.double()) < 0.04


def test_one_scale_for_all_rows_reaches_the_largest():
    quantised, scale = quantise(numbers(4, COLUMNS))
    assert scale.shape == ()
    assert quantised.float().abs().max() == 448.0


def test_where_the_device_scales_rows_both_sides_get_a_scale_each(monkeypatch):
    """The device is a stand-in that computes what torch documents for scales of rows."""
    layer, x = stored(scale_shape=(ROWS,)), numbers(5, COLUMNS, seed=1).bfloat16()

    def scaled_mm(a, b, *, scale_a, scale_b, bias, out_dtype):
        assert (scale_a.shape, scale_b.shape) == ((5, 1), (1, ROWS))
        assert scale_b.is_contiguous()
        return ((a.float() * scale_a) @ (b.float() * scale_b) + bias.float()).to(out_dtype)

    monkeypatch.setattr(fp8_product, "has_row_scales", lambda _weight, _dtype: True)
    monkeypatch.setattr(torch, "_scaled_mm", scaled_mm)
    bias = numbers(ROWS).bfloat16()
    found = prepare_fp8(layer, bias, torch.bfloat16)(x)
    assert relative_error(found, exact(layer, x, bias)) < BOUND[E4M3]


def test_a_format_asked_for_fp8_products_prepares_one(fp8_device):
    layer = stored()
    product = ScaledFormat(uses_fp8_product=True).prepare(layer, None, torch.bfloat16)
    assert isinstance(product, fp8_product.Fp8Linear)


def test_where_there_is_no_fp8_product_the_weight_is_expanded():
    layer, x = stored(), numbers(5, COLUMNS).bfloat16()
    asked = ScaledFormat(uses_fp8_product=True).prepare(layer, None, torch.bfloat16)(x)
    assert torch.equal(asked, ScaledFormat().prepare(layer, None, torch.bfloat16)(x))


@pytest.mark.parametrize(
    ("layer", "dtype", "reason"),
    [
        ({"weight": torch.zeros(16, 16)}, torch.bfloat16, "not stored as fp8"),
        ({"weight": torch.zeros(16, 24).to(E4M3)}, torch.bfloat16, "multiple of 16"),
        ({"weight": torch.zeros(24, 16).to(E4M3)}, torch.bfloat16, "multiple of 16"),
        (stored(), torch.float32, "fp32"),
        (stored(scale_shape=(ROWS,)), torch.float16, "scales per row in fp16"),
        ({**stored(), "weight_scale": torch.ones(ROWS, 4)}, torch.bfloat16, "scales per block"),
        (stored(), torch.bfloat16, "only NVIDIA GPUs"),
    ],
)
def test_a_layer_that_cannot_says_why(layer, dtype, reason):
    assert reason in (layer_problem(layer, CPU, dtype) or "")


@pytest.mark.parametrize(("capability", "has_it"), [((8, 6), False), ((8, 9), True), ((12, 0), True)])
def test_a_gpu_has_fp8_products_from_compute_capability_8_9_on(monkeypatch, capability, has_it):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert (device_problem(GPU) is None) is has_it


def test_the_report_says_how_many_and_why_not():
    report = ProductReport(38, {"scales per block": 2})
    assert str(report) == "fp8 products in 38 of 40 layers (2 are expanded: scales per block)"
