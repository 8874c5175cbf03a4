"""Which files are Fun Control, and how what they add is stored."""

import pytest
import torch
from comfyui_wanvideo.wanvideo import families
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.families.fun_control.family import FAMILY
from comfyui_wanvideo.wanvideo.families.fun_control.inputs import FUN_REFERENCE
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.detect import detect
from safetensors.torch import load_file, save_file

LAYOUTS = {
    "wan21_fun_control": {"control": (1, 16), "image": (2, 16)},
    "wan21_fun_control_ref": {"control": (1, 16), "image": (2, 16)},
    "wan22_fun_control": {"control": (1, 16), "image": (2, 20)},
    "wan22_fun_control_5b": {"control": (1, 48), "image": (2, 52)},
}
NAME = "wan22_fun_control"


@pytest.mark.parametrize("name", LAYOUTS)
def test_channels_in_the_order_and_number_of_the_file(load, name):
    parts = load(name).points.channels
    assert {key: (part.rank, part.width) for key, part in parts.items()} == LAYOUTS[name]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in LAYOUTS),
        ("wan21_fun_camera", False),
        ("wan22_fun_camera_5b", False),
        ("wan21_control_lora_merged", False),
        ("wan21_t2v", False),
    ],
)
def test_a_file_is_recognised_by_shapes_and_keys(fun_files, name, is_one):
    assert FAMILY.is_in(detect(Checkpoint.open(fun_files / f"tiny_{name}_fp32.safetensors"))) is is_one


def test_only_files_with_ref_conv_take_a_reference(load):
    having = {name for name in LAYOUTS if FUN_REFERENCE in load(name).accepted_inputs()}
    assert having == set(LAYOUTS) - {"wan21_fun_control"}


def stored(fun_files, tmp_path, **changes):
    """The tiny model with other tensors of ref_conv."""
    tensors = load_file(fun_files / f"tiny_{NAME}_fp32.safetensors")
    path = tmp_path / "changed.safetensors"
    save_file({**tensors, **{f"ref_conv.{name}": value for name, value in changes.items()}}, path)
    return Checkpoint.open(path)


def test_an_8_bit_ref_conv_is_decoded(fun_files, tmp_path, load):
    weight = load(NAME).ref_conv.weight
    checkpoint = stored(fun_files, tmp_path, weight=weight.to(torch.float8_e4m3fn))
    found = load_transformer(checkpoint, compute_dtype=torch.bfloat16, extend=families.extend)
    decoded = found.transformer.get_parameter("ref_conv.weight")
    assert decoded.dtype == torch.bfloat16
    torch.testing.assert_close(decoded.float(), weight.to(torch.float8_e4m3fn).float(), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
def test_the_scale_of_an_8_bit_ref_conv_is_applied(fun_files, tmp_path, load, name):
    weight, scale = load(NAME).ref_conv.weight, torch.tensor(0.25)
    packed = (weight / scale).to(torch.float8_e4m3fn)
    checkpoint = stored(fun_files, tmp_path, weight=packed, **{name: scale})
    found = load_transformer(checkpoint, compute_dtype=torch.float32, extend=families.extend)
    decoded = found.transformer.get_parameter("ref_conv.weight")
    torch.testing.assert_close(decoded.data, packed.float() * scale, atol=0, rtol=0)


def test_a_ref_conv_of_another_shape_is_refused_by_name(fun_files, tmp_path):
    checkpoint = stored(fun_files, tmp_path, weight=torch.zeros(256, 8, 2, 2))
    with pytest.raises(ModelFileError, match=r"ref_conv\.weight has shape \[256, 8, 2, 2\], expected"):
        load_transformer(checkpoint, compute_dtype=torch.float32, extend=families.extend)
