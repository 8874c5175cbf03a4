"""Which files are Fun Camera."""

import pytest
import torch
from comfyui_wanvideo.wanvideo import families
from comfyui_wanvideo.wanvideo.errors import InputError, ModelFileError
from comfyui_wanvideo.wanvideo.families.fun_camera.cameras import camera_of_poses
from comfyui_wanvideo.wanvideo.families.fun_camera.family import FAMILY
from comfyui_wanvideo.wanvideo.families.fun_camera.inputs import CAMERA, FunCameraInput
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.request_checks import check_inputs
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.detect import detect
from safetensors.torch import load_file, save_file

from .test_cameras import entries

IMAGE_CHANNELS = {"wan21_fun_camera": 16, "wan22_fun_camera": 20, "wan22_fun_camera_5b": 52}


@pytest.mark.parametrize("name", IMAGE_CHANNELS)
def test_the_image_has_the_channels_of_the_file(load, name):
    parts = load(name).points.channels
    assert {key: part.width for key, part in parts.items()} == {"image": IMAGE_CHANNELS[name]}


@pytest.mark.parametrize("name", IMAGE_CHANNELS)
def test_it_runs_without_an_image(load, name):
    assert all(not part.required for part in load(name).points.channels.values())


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in IMAGE_CHANNELS),
        ("wan22_fun_control", False),
        ("wan21_control_lora_merged", False),
        ("wan21_t2v", False),
    ],
)
def test_a_file_is_recognised_by_its_adapter(fun_files, name, is_one):
    assert FAMILY.is_in(detect(Checkpoint.open(fun_files / f"tiny_{name}_fp32.safetensors"))) is is_one


@pytest.mark.parametrize(("name", "stride"), [("wan22_fun_camera", 8), ("wan22_fun_camera_5b", 16)])
def test_the_adapter_folds_cells_as_large_as_a_latent(load, name, stride):
    assert load(name).control_adapter.stride == stride


def changed(fun_files, tmp_path, **changes):
    tensors = load_file(fun_files / "tiny_wan22_fun_camera_fp32.safetensors")
    path = tmp_path / "changed.safetensors"
    save_file({**tensors, **{f"control_adapter.{key}": value for key, value in changes.items()}}, path)
    return Checkpoint.open(path)


def test_an_adapter_of_another_vae_is_refused_with_both_numbers(fun_files, tmp_path):
    checkpoint = changed(fun_files, tmp_path, **{"conv.weight": torch.zeros(256, 6144, 2, 2)})
    with pytest.raises(ModelFileError, match="its camera adapter takes 6144 channels, expected 1536"):
        load_transformer(checkpoint, compute_dtype=torch.float32, extend=families.extend)


def test_an_8_bit_adapter_is_decoded(fun_files, tmp_path):
    weight = load_file(fun_files / "tiny_wan22_fun_camera_fp32.safetensors")["control_adapter.conv.weight"]
    packed = weight.to(torch.float8_e4m3fn)
    checkpoint = changed(fun_files, tmp_path, **{"conv.weight": packed})
    model = load_transformer(checkpoint, compute_dtype=torch.bfloat16, extend=families.extend).transformer
    found = model.get_parameter("control_adapter.conv.weight")
    torch.testing.assert_close(found.float(), packed.float(), atol=0, rtol=0)


def test_another_model_is_refused_with_those_that_take_a_camera(load):
    value = FunCameraInput(camera=camera_of_poses(entries()))
    with pytest.raises(InputError, match=r"an input for camera.*Fun Camera model"):
        check_inputs(load("wan22_fun_control"), {CAMERA: value})
