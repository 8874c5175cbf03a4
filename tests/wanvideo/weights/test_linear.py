"""The linear layer."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.formats.scaled import ScaledFormat
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from torch import nn

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]


def frozen(tensor):
    return nn.Parameter(tensor, requires_grad=False)


def filled(storage, *, bias=True, bias_dtype=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layer = WanLinear(24, 16, bias)
    layer.weight = frozen((torch.randn(16, 24, generator=generator) / 5).to(storage))
    if bias:
        layer.bias = frozen(torch.randn(16, generator=generator).to(bias_dtype or torch.float32))
    return layer


def inputs(dtype, shape=(2, 7, 24)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bias", [True, False])
def test_it_equals_nn_linear_bit_for_bit_when_dtypes_agree(dtype, bias):
    layer = filled(dtype, bias=bias, bias_dtype=dtype)
    reference = nn.Linear(24, 16, bias, dtype=dtype)
    reference.load_state_dict(layer.state_dict())
    assert torch.equal(layer(inputs(dtype)), reference(inputs(dtype)))


@pytest.mark.parametrize("storage", [*FLOATS, *FP8])
@pytest.mark.parametrize("compute", FLOATS)
def test_the_result_has_the_dtype_of_the_input(storage, compute):
    assert filled(storage)(inputs(compute)).dtype == compute


@pytest.mark.parametrize("storage", [*FLOATS, *FP8])
@pytest.mark.parametrize("compute", FLOATS)
def test_any_storage_gives_the_product_of_the_stored_values(storage, compute):
    layer, x = filled(storage), inputs(compute)
    assert layer.bias is not None
    expected = x.double() @ layer.weight.double().T + layer.bias.double()
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[compute]
    error = (layer(x).double() - expected).norm() / expected.norm()
    assert error < tolerance


@pytest.mark.parametrize("storage", FP8)
@pytest.mark.parametrize("shape", [(), (1,), (16,), (16, 1)])
def test_a_scale_per_tensor_or_per_row_multiplies_the_weight(storage, shape):
    layer, x = filled(storage), inputs(torch.float32)
    scale = torch.rand(shape) + 0.5
    layer.store_as(ScaledFormat(), {**layer.stored(), "weight_scale": scale})
    rows = scale.double().reshape(-1, 1)
    assert layer.bias is not None
    expected = x.double() @ (layer.weight.double() * rows).T + layer.bias.double()
    assert (layer(x).double() - expected).norm() / expected.norm() < 1e-6


def test_the_scale_is_not_rounded_to_bfloat16():
    layer = filled(torch.float8_e4m3fn)
    scale = torch.tensor(1 + 2**-9)  # bfloat16 would make it 1
    layer.store_as(ScaledFormat(), {**layer.stored(), "weight_scale": scale})
    expected = (layer.weight.float() * (1 + 2**-9)).bfloat16()
    assert torch.equal(layer.materialize(torch.bfloat16), expected)


def test_materialize_copies_nothing_when_the_dtype_fits():
    layer = filled(torch.bfloat16)
    assert layer.materialize(torch.bfloat16).data_ptr() == layer.weight.data_ptr()


def test_the_stored_weight_is_not_changed_by_a_forward():
    layer = filled(torch.float8_e4m3fn)
    layer.store_as(ScaledFormat(), {**layer.stored(), "weight_scale": torch.tensor(3.0)})
    before = layer.weight.float().clone()
    layer(inputs(torch.float32))
    assert torch.equal(layer.weight.float(), before)


@pytest.mark.parametrize("shape", [(24,), (3, 24), (0, 24), (2, 3, 4, 24)])
def test_any_leading_shape_is_kept(shape):
    assert filled(torch.float32)(inputs(torch.float32, shape)).shape == (*shape[:-1], 16)


def test_on_meta_it_has_shapes_and_no_memory():
    with torch.device("meta"):
        layer = WanLinear(100_000, 100_000)
    assert layer.weight.is_meta
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == {
        "weight": (100_000, 100_000),
        "bias": (100_000,),
    }


def test_parameters_are_frozen():
    assert not any(parameter.requires_grad for parameter in WanLinear(2, 2).parameters())
