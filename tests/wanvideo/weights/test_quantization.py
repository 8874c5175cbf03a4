"""The quantization option of the loader against the file."""

import json
import logging

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.weights.checkpoint import StoredTensor
from comfyui_wanvideo.wanvideo.weights.conversion import Conversion
from comfyui_wanvideo.wanvideo.weights.keys import to_diffusers
from comfyui_wanvideo.wanvideo.weights.quantization import OPTIONS, check_quantization, wants_fp8_matmul

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
KEY = "blocks.0.self_attn.q.weight"
SCALED = tuple(option for option in OPTIONS if "_scaled" in option)
PLAIN = tuple(option for option in OPTIONS if "_scaled" not in option and option != "disabled")
DTYPE_OF = {option: E4M3 if "e4m3fn" in option else E5M2 for option in OPTIONS}


@pytest.fixture
def file(make_file):
    def make(dtype, *, scale=None, described=None):
        weight = torch.ones(16, 16)
        tensors = {KEY: weight.to(dtype), "head.weight": torch.ones(2, 2)}
        if scale:
            tensors[KEY.removesuffix("weight") + scale] = torch.ones(())
        metadata = None
        if described:
            layers = {KEY.removesuffix(".weight"): {"format": described}}
            metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
        return make_file(tensors, metadata=metadata)

    return make


def refused(checkpoint, option):
    with pytest.raises(InputError) as caught:
        check_quantization(checkpoint, option)
    assert caught.value.input_name == "quantization"
    return str(caught.value)


def test_the_options_are_those_of_the_loader():
    assert OPTIONS == (
        "disabled",
        "fp8_e4m3fn",
        "fp8_e4m3fn_fast",
        "fp8_e4m3fn_scaled",
        "fp8_e4m3fn_scaled_fast",
        "fp8_e5m2",
        "fp8_e5m2_fast",
        "fp8_e5m2_scaled",
        "fp8_e5m2_scaled_fast",
    )


@pytest.mark.parametrize("option", OPTIONS)
def test_the_fast_options_ask_for_fp8_products(option):
    assert wants_fp8_matmul(option) is ("fast" in option)


@pytest.mark.parametrize("option", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_wide_file_is_converted_without_scales(file, dtype, option):
    assert check_quantization(file(dtype), option) == Conversion(DTYPE_OF[option], "none")


@pytest.mark.parametrize("option", SCALED)
def test_a_scaled_option_on_a_wide_file_says_what_to_choose(file, option):
    message = refused(file(torch.bfloat16), option)
    assert "scaled" in message
    assert "stored as bfloat16. Choose fp8_e" in message


@pytest.mark.parametrize("option", PLAIN)
def test_an_fp8_file_of_the_same_type_is_left_as_it_is(file, option):
    assert check_quantization(file(DTYPE_OF[option]), option) is None


@pytest.mark.parametrize("scale", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("option", SCALED)
def test_a_scaled_file_of_the_same_type_is_left_as_it_is(file, option, scale):
    assert check_quantization(file(DTYPE_OF[option], scale=scale), option) is None


@pytest.mark.parametrize("option", SCALED)
def test_a_scaled_option_on_an_fp8_file_without_scales_is_refused(file, option):
    assert "without scales" in refused(file(DTYPE_OF[option]), option)


@pytest.mark.parametrize("option", PLAIN)
def test_a_plain_option_on_a_scaled_file_keeps_the_file_s_format_and_says_so(file, option, caplog):
    with caplog.at_level(logging.INFO):
        assert check_quantization(file(DTYPE_OF[option], scale="scale_weight"), option) is None
    (record,) = caplog.records
    assert "it is read as it is stored" in record.getMessage()


@pytest.mark.parametrize("scale", [None, "scale_weight"])
@pytest.mark.parametrize("option", OPTIONS[1:])
def test_the_other_fp8_type_is_refused(file, option, scale):
    other = E5M2 if DTYPE_OF[option] is E4M3 else E4M3
    assert "choose disabled or fp8_e" in refused(file(other, scale=scale), option)


@pytest.mark.parametrize("option", OPTIONS[1:])
@pytest.mark.parametrize("described", ["int8_tensorwise", "nvfp4", "convrot_w4a4", "mxfp8"])
def test_a_file_in_another_quantised_format_is_refused_by_name(file, option, described):
    message = refused(file(torch.uint8, described=described), option)
    assert f"stored as {described} already; choose disabled" in message


@pytest.mark.parametrize("option", OPTIONS[1:])
def test_a_gguf_file_is_refused_by_its_type(file, option):
    packed = StoredTensor(
        (16, 16), torch.uint8, lambda: torch.zeros(0), encoding="Q4_K", stored_shape=(16, 9)
    )
    checkpoint = file(torch.float16).replaced({KEY: packed})
    assert "stored as Q4_K already; choose disabled" in refused(checkpoint, option)


def test_a_described_fp8_file_counts_as_scaled(file):
    checkpoint = file(E4M3, scale="weight_scale", described="float8_e4m3fn")
    assert check_quantization(checkpoint, "fp8_e4m3fn_scaled") is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, E4M3, torch.uint8], ids=str)
def test_disabled_takes_what_the_file_has(file, dtype):
    assert check_quantization(file(dtype), "disabled") is None


def test_prefixes_and_diffusers_names_change_nothing(make_file):
    checkpoint = make_file({f"model.diffusion_model.{to_diffusers(KEY)}": torch.ones(16, 16).to(E5M2)})
    assert "fp8_e5m2" in refused(checkpoint, "fp8_e4m3fn")


def test_an_unknown_option_lists_the_known_ones(file):
    assert "fp8_e5m2_scaled_fast" in refused(file(E4M3), "fp4")
