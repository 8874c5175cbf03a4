"""Number formats of transformer files."""

import json

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.detect import describe_file, detect
from comfyui_wanvideo.wanvideo.weights.formats.describe import StorageFormat, format_name, storage_format

FP8 = torch.float8_e4m3fn


@pytest.fixture
def quantised(shapes_of, make_header):
    """A header whose block matrices have `dtype`, with more keys."""

    def make(dtype, extra=(), metadata=None):
        shapes = shapes_of["wan"]()
        dtypes = {key: dtype for key, shape in shapes.items() if "blocks." in key and len(shape) == 2}
        return make_header({**shapes, **dict.fromkeys(extra, ())}, dtypes=dtypes, metadata=metadata)

    return make


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_plain_files_are_dense_and_accepted(quantised, dtype):
    assert storage_format(quantised(dtype)) is StorageFormat.DENSE
    assert dtype in detect(quantised(dtype)).dtypes


@pytest.mark.parametrize(
    ("dtype", "extra", "name"),
    [
        (FP8, [], "fp8 without scales: float8_e4m3fn"),
        (torch.float8_e5m2, [], "fp8 without scales: float8_e5m2"),
        (FP8, ["scaled_fp8"], "scaled fp8 (scale_weight): float8_e4m3fn"),
        (FP8, ["blocks.0.ffn.0.scale_weight"], "scaled fp8 (scale_weight): float8_e4m3fn"),
        (FP8, ["blocks.0.ffn.0.weight_scale"], "scaled fp8 (scale_weight): float8_e4m3fn"),
        (torch.int8, ["blocks.0.ffn.0.weight_scale"], "an integer format: int8"),
        (torch.uint8, [], "an integer format: uint8"),
        (torch.bfloat16, ["blocks.0.ffn.2.weight._data"], "quanto int8"),
    ],
)
def test_a_quantised_file_is_refused_with_the_name_of_its_format(quantised, dtype, extra, name):
    checkpoint = quantised(dtype, extra)
    assert format_name(checkpoint) == name
    with pytest.raises(ModelFileError, match=r"model\.safetensors: is quantised, stored as ") as caught:
        detect(checkpoint)
    assert name in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_comfy_quant_layers_are_named_by_their_kinds(make_file, make_tensors, shapes_of, prefix):
    tensors = make_tensors(shapes_of["wan"](dim=128, ffn=128, layers=1))
    for layer, kind in (("blocks.0.ffn.0", "nvfp4"), ("blocks.0.ffn.2", "float8_e4m3fn")):
        text = json.dumps({"format": kind}).encode()
        tensors[f"{layer}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    checkpoint = make_file({prefix + key: tensor for key, tensor in tensors.items()})
    assert format_name(checkpoint) == "ComfyUI quantisation (comfy_quant): float8_e4m3fn, nvfp4"
    with pytest.raises(ModelFileError, match="float8_e4m3fn, nvfp4"):
        detect(checkpoint)


def test_quantisation_in_the_metadata_is_seen(quantised):
    metadata = {"_quantization_metadata": json.dumps({"layers": {"blocks.0.ffn.0": {"format": "mxfp8"}}})}
    assert format_name(quantised(FP8, metadata=metadata)) == "ComfyUI quantisation (comfy_quant): mxfp8"


def test_unreadable_quantisation_metadata_is_no_crash(quantised):
    metadata = {"_quantization_metadata": "{"}
    assert format_name(quantised(FP8, metadata=metadata)) == "ComfyUI quantisation (comfy_quant)"


def test_the_description_of_a_file_names_its_format(quantised):
    assert describe_file(quantised(FP8)).endswith(", fp8 without scales: float8_e4m3fn")
