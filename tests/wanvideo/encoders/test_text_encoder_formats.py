"""UMT5 files in every storage format."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import formats
from comfyui_wanvideo.wanvideo.encoders.text_encoder import load_umt5
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from torch import Tensor

from ..weights.formats.reference import dequantised
from .conftest import encode

FP8 = torch.float8_e4m3fn


def is_linear(key: str) -> bool:
    return ".attn." in key or ".ffn." in key


def as_fp8(weights: dict[str, Tensor], *, scale_name: str | None) -> dict[str, Tensor]:
    """Linear weights as fp8, alone or with one scale per weight."""
    stored = {}
    for key, tensor in weights.items():
        if not is_linear(key):
            stored[key] = tensor
            continue
        scale = tensor.abs().max() / 448 if scale_name else torch.tensor(1.0)
        stored[key] = (tensor / scale).to(FP8)
        if scale_name:
            stored[key.removesuffix("weight") + scale_name] = scale
    return stored


def dequantized(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    dense = {}
    for key, tensor in stored.items():
        if tensor.dtype == FP8:
            path = key.removesuffix("weight")
            scale = stored.get(path + "scale_weight", stored.get(path + "weight_scale", torch.tensor(1.0)))
            dense[key] = tensor.float() * scale
        elif "scale" not in key:
            dense[key] = tensor
    return dense


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, FP8], ids=str)
def test_narrow_weights_stay_views_on_the_file(stored, save_umt5, umt5_weights):
    checkpoint = save_umt5({key: tensor.to(stored) for key, tensor in umt5_weights.items()})
    module = load_umt5(checkpoint, dtype=torch.float32).module
    for key, parameter in module.named_parameters():
        assert parameter.data_ptr() == checkpoint.tensor(key).data_ptr(), key


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16], ids=str)
def test_casting_on_use_gives_the_same_bits_as_casting_the_file(stored, save_umt5, umt5_weights):
    narrow = {key: tensor.to(stored) for key, tensor in umt5_weights.items()}
    wide = {key: tensor.float() for key, tensor in narrow.items()}
    lazy = load_umt5(save_umt5(narrow, "narrow.safetensors"), dtype=torch.float32)
    eager = load_umt5(save_umt5(wide, "wide.safetensors"), dtype=torch.float32)
    assert torch.equal(encode(lazy), encode(eager))


def test_weights_wider_than_the_compute_dtype_are_narrowed_once(save_umt5, umt5_weights):
    module = load_umt5(save_umt5(umt5_weights), dtype=torch.bfloat16).module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("scale_name", [None, "scale_weight", "weight_scale"])
@pytest.mark.parametrize("style", ["official", "hf"])
def test_fp8_files_equal_their_dequantized_weights(
    scale_name, style, save_umt5, umt5_weights, relative_error
):
    stored = as_fp8(umt5_weights, scale_name=scale_name)
    marker = {"scaled_fp8": torch.zeros(2, dtype=FP8)} if scale_name else None
    found = load_umt5(save_umt5(stored, style=style, extra=marker), dtype=torch.float32)
    expected = load_umt5(save_umt5(dequantized(stored), "dense.safetensors"), dtype=torch.float32)
    assert relative_error(encode(found), encode(expected)) < 1e-6


@pytest.mark.parametrize("scale_name", [None, "scale_weight"])
def test_an_fp8_file_is_within_6_percent_of_full_precision(
    scale_name, exact, save_umt5, umt5_weights, relative_error
):
    loaded = load_umt5(save_umt5(as_fp8(umt5_weights, scale_name=scale_name)), dtype=torch.float32)
    assert relative_error(encode(loaded), exact) < 0.06


@pytest.mark.parametrize("quantise", [formats.comfy_fp8, formats.int8, formats.mxfp8, formats.nvfp4])
@pytest.mark.parametrize("style", ["official", "hf"])
def test_comfyui_s_formats_equal_their_dequantized_weights(
    quantise, style, save_umt5, umt5_weights, relative_error
):
    layers = {key: quantise(tensor) for key, tensor in umt5_weights.items() if is_linear(key)}
    rest = {key: tensor for key, tensor in umt5_weights.items() if not is_linear(key)}
    stored = {
        key.removesuffix("weight") + name: part
        for key, layer in layers.items()
        for name, part in layer.items()
    }
    dense = {key: dequantised(layer, tuple(umt5_weights[key].shape)).float() for key, layer in layers.items()}
    found = load_umt5(save_umt5({**rest, **stored}, style=style), dtype=torch.float32)
    expected = load_umt5(save_umt5({**rest, **dense}, "dense.safetensors"), dtype=torch.float32)
    assert relative_error(encode(found), encode(expected)) < 1e-5


@pytest.mark.parametrize("blocks", [1, 4])
def test_scales_per_row_and_per_block_equal_their_dequantized_weights(
    blocks, save_umt5, umt5_weights, relative_error
):
    key = "blocks.0.ffn.fc1.weight"
    layer = formats.scaled_fp8(umt5_weights[key], blocks=blocks)
    stored = {
        **umt5_weights,
        key: layer["weight"],
        key.removesuffix("weight") + "scale_weight": layer["scale_weight"],
    }
    dense = {**umt5_weights, key: dequantised(layer, tuple(umt5_weights[key].shape)).float()}
    found = load_umt5(save_umt5(stored), dtype=torch.float32)
    expected = load_umt5(save_umt5(dense, "dense.safetensors"), dtype=torch.float32)
    assert relative_error(encode(found), encode(expected)) < 1e-6


@pytest.mark.parametrize("style", ["official", "hf"])
def test_a_quantised_embedding_table_equals_its_dequantized_numbers(
    style, save_umt5, umt5_weights, relative_error
):
    key = "token_embedding.weight"
    layer = formats.comfy_fp8(umt5_weights[key])
    stored = {**umt5_weights, **{f"token_embedding.{name}": part for name, part in layer.items()}}
    dense = {**umt5_weights, key: dequantised(layer, tuple(umt5_weights[key].shape)).float()}
    found = load_umt5(save_umt5(stored, style=style), dtype=torch.float32)
    expected = load_umt5(save_umt5(dense, "dense.safetensors"), dtype=torch.float32)
    assert relative_error(encode(found), encode(expected)) < 1e-6


def test_quantization_stores_linear_weights_as_fp8_and_nothing_else(save_umt5, umt5_weights):
    module = load_umt5(save_umt5(umt5_weights), dtype=torch.bfloat16, storage_dtype=FP8).module
    for key, parameter in module.named_parameters():
        if not key.endswith("weight_scale"):
            assert parameter.dtype == (FP8 if is_linear(key) else torch.float32), key


def test_quantization_is_nearer_to_full_precision_than_a_plain_fp8_file(
    exact, save_umt5, umt5_weights, relative_error
):
    checkpoint = save_umt5(umt5_weights)
    ours = load_umt5(checkpoint, dtype=torch.float32, storage_dtype=FP8)
    plain = load_umt5(save_umt5(as_fp8(umt5_weights, scale_name=None), "p.safetensors"), dtype=torch.float32)
    assert relative_error(encode(ours), exact) < 0.05
    assert relative_error(encode(ours), exact) < relative_error(encode(plain), exact)


def test_quantizing_an_fp8_file_changes_nothing(save_umt5, umt5_weights):
    checkpoint = save_umt5(as_fp8(umt5_weights, scale_name="scale_weight"))
    asked = load_umt5(checkpoint, dtype=torch.float32, storage_dtype=FP8)
    assert torch.equal(encode(asked), encode(load_umt5(checkpoint, dtype=torch.float32)))


def test_a_row_of_zeros_survives_quantization(save_umt5, umt5_weights):
    weights = {**umt5_weights, "blocks.0.attn.q.weight": torch.zeros(96, 64)}
    loaded = load_umt5(save_umt5(weights), dtype=torch.float32, storage_dtype=FP8)
    assert torch.isfinite(encode(loaded)).all()


def test_scales_that_do_not_fit_are_refused_instead_of_misread(save_umt5, umt5_weights):
    stored = as_fp8(umt5_weights, scale_name="weight_scale")
    stored["blocks.0.attn.q.weight_scale"] = torch.ones(96, 3)
    with pytest.raises(ModelFileError, match=r"blocks\.0\.attn\.q\.weight_scale has shape \[96, 3\]"):
        load_umt5(save_umt5(stored), dtype=torch.float32)
