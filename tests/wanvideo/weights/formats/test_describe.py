"""What transformer files are stored as, by name."""

import json

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.detect import describe_file, detect
from comfyui_wanvideo.wanvideo.weights.formats.describe import block_formats, require_readable

FP8 = torch.float8_e4m3fn


@pytest.fixture
def quantised(shapes_of, make_header):
    """A header whose block matrices have `dtype`, with more keys."""

    def make(dtype, extra=(), metadata=None):
        shapes = shapes_of["wan"]()
        dtypes = {key: dtype for key, shape in shapes.items() if "blocks." in key and len(shape) == 2}
        return make_header({**shapes, **dict.fromkeys(extra, ())}, dtypes=dtypes, metadata=metadata)

    return make


@pytest.mark.parametrize(
    ("dtype", "extra", "name"),
    [
        (torch.float32, [], "float32"),
        (torch.float16, [], "float16"),
        (torch.bfloat16, [], "bfloat16"),
        (FP8, [], "float8_e4m3fn"),
        (torch.float8_e5m2, [], "float8_e5m2"),
    ],
)
def test_matrices_without_scales_are_named_by_their_type(quantised, dtype, extra, name):
    assert block_formats(quantised(dtype, extra)) == {name}


@pytest.mark.parametrize("dtype", [FP8, torch.float8_e5m2])
def test_a_matrix_with_a_scale_is_named_scaled(quantised, dtype):
    checkpoint = quantised(dtype, ["blocks.0.ffn.0.weight_scale"])
    assert f"scaled {str(dtype).removeprefix('torch.')}" in block_formats(checkpoint)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, FP8, torch.float8_e5m2])
def test_what_is_read_is_accepted(quantised, dtype):
    assert dtype in detect(quantised(dtype)).dtypes


@pytest.mark.parametrize(
    ("dtype", "extra", "name"),
    [
        (torch.int8, ["blocks.0.ffn.0.weight_scale"], "an integer format"),
        (torch.uint8, [], "uint8"),
        (torch.bfloat16, ["blocks.0.ffn.2.weight._data"], "quanto int8"),
    ],
)
def test_what_is_not_read_is_refused_by_name(quantised, dtype, extra, name):
    with pytest.raises(ModelFileError, match=rf"model\.safetensors: is quantised, stored as .*{name}"):
        detect(quantised(dtype, extra))


def described(make_file, make_tensors, shapes_of, *, kinds, prefix=""):
    """A file whose layers carry ComfyUI's descriptions."""
    tensors = make_tensors(shapes_of["wan"](dim=128, ffn=128, layers=1))
    for layer, kind in kinds.items():
        text = json.dumps({"format": kind}).encode()
        tensors[f"{layer}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    return make_file({prefix + key: tensor for key, tensor in tensors.items()})


def test_described_layers_are_named_by_their_formats(make_file, make_tensors, shapes_of):
    kinds = {"blocks.0.ffn.0": "nvfp4", "blocks.0.ffn.2": "mxfp8"}
    checkpoint = described(make_file, make_tensors, shapes_of, kinds=kinds)
    assert block_formats(checkpoint) == {"nvfp4", "mxfp8", "float32"}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_an_unknown_described_format_is_refused_by_name(make_file, make_tensors, shapes_of, prefix):
    kinds = {"blocks.0.ffn.0": "nvfp4", "blocks.0.ffn.2": "turbo3"}
    checkpoint = described(make_file, make_tensors, shapes_of, kinds=kinds, prefix=prefix)
    with pytest.raises(ModelFileError, match="the ComfyUI format turbo3"):
        detect(checkpoint)


def test_a_readable_file_passes(quantised):
    assert require_readable(quantised(FP8)) is None


def test_the_description_of_a_file_names_its_format(quantised):
    assert describe_file(quantised(FP8)).endswith(", float8_e4m3fn")


def test_the_description_of_a_dense_file_does_not_name_its_format(quantised):
    assert "bfloat16" not in describe_file(quantised(torch.bfloat16))


def test_a_spec_names_the_formats(quantised):
    checkpoint = quantised(FP8, ["blocks.0.ffn.0.weight_scale"])
    assert "stored as float8_e4m3fn, scaled float8_e4m3fn" in str(detect(checkpoint))
