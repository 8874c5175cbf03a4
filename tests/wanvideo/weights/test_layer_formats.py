"""ComfyUI's descriptions of quantised layers, in tensors and in the metadata."""

import json

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint, layer_format
from comfyui_wanvideo.wanvideo.weights.keys import canonical, to_diffusers
from comfyui_wanvideo.wanvideo.weights.layer_formats import LayerFormat
from safetensors.torch import save_file

KEY = "blocks.0.self_attn.q.weight"
NVFP4 = {"format": "nvfp4"}


def in_metadata(layers):
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def as_tensor(description):
    return torch.tensor(list(json.dumps(description).encode()), dtype=torch.uint8)


def packed(key=KEY):
    return {key: torch.zeros(16, 8, dtype=torch.uint8)}


def layer_of(key):
    return key.removesuffix(".weight")


@pytest.mark.parametrize("prefix_of_keys", ["", "model.diffusion_model."])
@pytest.mark.parametrize("prefix_of_layers", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("rename", [str, to_diffusers], ids=["official", "diffusers"])
def test_a_description_in_the_metadata_finds_its_layer(make_file, prefix_of_keys, prefix_of_layers, rename):
    key = rename(KEY)
    metadata = in_metadata({prefix_of_layers + layer_of(key): NVFP4})
    checkpoint = canonical(make_file(packed(prefix_of_keys + key), metadata=metadata))
    assert layer_format(checkpoint, layer_of(KEY)) == LayerFormat("nvfp4")


def test_a_description_of_a_layer_that_is_not_there_is_left_out(make_file):
    checkpoint = make_file(packed(), metadata=in_metadata({"blocks.7.ffn.0": NVFP4}))
    assert set(checkpoint) == {KEY}


def test_metadata_and_tensors_mean_the_same(make_file):
    description = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 64}
    tensors = {KEY: torch.zeros(16, 64, dtype=torch.int8)}
    first = make_file(tensors, "first.safetensors", in_metadata({layer_of(KEY): description}))
    second = make_file(
        {**tensors, f"{layer_of(KEY)}.comfy_quant": as_tensor(description)}, "second.safetensors"
    )
    assert layer_format(first, layer_of(KEY)) == layer_format(second, layer_of(KEY))


@pytest.mark.parametrize("place", ["params", "top"])
def test_settings_may_stand_in_params_or_at_the_top(make_file, place):
    settings = {"convrot_groupsize": 64, "linear_dtype": "int8"}
    content = {"format": "convrot_w4a4", **({"params": settings} if place == "params" else settings)}
    checkpoint = make_file({**packed(), f"{layer_of(KEY)}.comfy_quant": as_tensor(content)})
    found = layer_format(checkpoint, layer_of(KEY))
    assert found == LayerFormat("convrot_w4a4", group_size=64, linear_dtype="int8")


@pytest.mark.parametrize("name", ["nvfp4", "convrot_w4a4"])
def test_the_shape_of_two_numbers_in_a_byte_is_that_of_the_numbers(make_file, name):
    checkpoint = make_file(packed(), metadata=in_metadata({layer_of(KEY): {"format": name}}))
    assert (checkpoint.shape(KEY), checkpoint.stored_shape(KEY)) == ((16, 16), (16, 8))


def test_descriptions_in_the_metadata_of_shards_are_collected(tmp_path):
    keys = ("a.weight", "b.weight")
    for number, key in enumerate(keys, 1):
        metadata = in_metadata({layer_of(key): {"format": "mxfp8" if number == 1 else "nvfp4"}})
        save_file(packed(key), tmp_path / f"m-0000{number}-of-00002.safetensors", metadata)
    checkpoint = Checkpoint.open(tmp_path / "m-00001-of-00002.safetensors")
    assert [layer_format(checkpoint, layer_of(key)).name for key in keys] == ["mxfp8", "nvfp4"]


@pytest.mark.parametrize("text", ["{", "[]", '{"layers": 3}', "\x00"])
def test_unreadable_metadata_is_refused(make_file, text):
    with pytest.raises(ModelFileError, match="_quantization_metadata cannot be read"):
        make_file(packed(), metadata={"_quantization_metadata": text})


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"format": 3}', b"\xff\xfe"])
def test_an_unreadable_description_is_refused_by_its_layer(make_file, content):
    text = torch.tensor(list(content), dtype=torch.uint8)
    with pytest.raises(ModelFileError, match=r"blocks\.0\.self_attn\.q\.comfy_quant does not say"):
        make_file({**packed(), f"{layer_of(KEY)}.comfy_quant": text})


def test_a_group_size_that_is_no_number_is_refused(make_file):
    text = as_tensor({"format": "convrot_w4a4", "convrot_groupsize": "many"})
    with pytest.raises(ModelFileError, match="convrot_groupsize 'many'"):
        make_file({**packed(), f"{layer_of(KEY)}.comfy_quant": text})
