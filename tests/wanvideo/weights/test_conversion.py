"""Weights converted to fp8 while they are loaded."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights import conversion as conversion_module
from comfyui_wanvideo.wanvideo.weights.conversion import Conversion, converted

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
KEY, SCALE = "blocks.0.ffn.0.weight", "blocks.0.ffn.0.weight_scale"
BOUND = {E4M3: 0.03, E5M2: 0.06}


def a_weight(dtype=torch.float32):
    return (torch.randn(48, 64, generator=torch.Generator().manual_seed(0)) / 50).to(dtype)


@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=str)
def test_without_scaling_the_numbers_are_cast(make_file, dtype, source):
    found = converted(make_file({KEY: a_weight(source)}), Conversion(dtype), [KEY])
    assert torch.equal(found.tensor(KEY).float(), a_weight(source).to(dtype).float())


@pytest.mark.parametrize("scaling", ["row", "tensor"])
@pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=str)
def test_scaled_weights_keep_the_precision_of_fp8(make_file, dtype, scaling):
    found = converted(make_file({KEY: a_weight()}), Conversion(dtype, scaling), [KEY])
    restored = found.tensor(KEY).float() * found.tensor(SCALE).reshape(-1, 1)
    assert (restored - a_weight()).norm() / a_weight().norm() < BOUND[dtype]


@pytest.mark.parametrize(("scaling", "shape"), [("row", (48,)), ("tensor", ())])
def test_the_largest_number_becomes_the_limit_of_the_type(make_file, scaling, shape):
    found = converted(make_file({KEY: a_weight()}), Conversion(E4M3, scaling), [KEY])
    assert found.shape(SCALE) == found.tensor(SCALE).shape == shape
    largest = found.tensor(KEY).float().abs().amax(1)
    assert largest.max() == 448
    assert scaling == "tensor" or (largest == 448).all()


def test_the_scale_can_be_read_before_the_weight(make_file):
    file = make_file({KEY: a_weight()})
    first, second = (converted(file, Conversion(E4M3, "row"), [KEY]) for _ in range(2))
    scale = first.tensor(SCALE)
    assert torch.equal(first.tensor(KEY).float(), second.tensor(KEY).float())
    assert torch.equal(scale, second.tensor(SCALE))


def test_groups_of_rows_give_the_bits_of_the_whole(make_file, monkeypatch):
    file = make_file({KEY: a_weight()})
    whole = converted(file, Conversion(E4M3, "row"), [KEY]).tensor(KEY)
    monkeypatch.setattr(conversion_module, "_VALUES_AT_ONCE", 200)
    found = converted(file, Conversion(E4M3, "row"), [KEY]).tensor(KEY)
    assert torch.equal(found.view(torch.uint8), whole.view(torch.uint8))


def test_a_row_of_zeros_stays_zero(make_file):
    weight = a_weight()
    weight[3] = 0
    found = converted(make_file({KEY: weight}), Conversion(E4M3, "row"), [KEY])
    assert (found.tensor(KEY)[3].float() == 0).all()


@pytest.mark.parametrize("stored", [E4M3, E5M2, torch.int8], ids=str)
def test_what_is_stored_in_8_bit_is_left_alone(make_file, stored):
    file = make_file({KEY: (a_weight() * 100).to(stored)})
    assert converted(file, Conversion(E4M3, "row"), [KEY]).dtype(KEY) == stored


def test_other_keys_are_left_alone(make_file):
    file = make_file({KEY: a_weight(), "head.weight": a_weight()})
    assert converted(file, Conversion(E4M3), [KEY]).dtype("head.weight") == torch.float32


def test_keys_the_file_does_not_have_are_skipped(make_file):
    assert set(converted(make_file({KEY: a_weight()}), Conversion(E4M3), [KEY, "other.weight"])) == {KEY}


def test_nothing_is_read_before_it_is_asked_for(make_header):
    found = converted(make_header({KEY: (4, 4)}), Conversion(E4M3, "row"), [KEY])
    assert (found.shape(KEY), found.dtype(KEY), found.shape(SCALE)) == ((4, 4), E4M3, (4,))


def test_another_dtype_is_a_mistake_in_the_code():
    with pytest.raises(ValueError, match="float16"):
        Conversion(torch.float16)
