"""A model a control LoRA was merged into."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.control import CONTROL, ControlInput
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.control_lora.family import FAMILY
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.detect import detect

from ..fun_control.conftest import forward, relative_error, setup_of, theirs, video_latent

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2e-2
NAME = "wan21_control_lora_merged"


def control(model, **more):
    return ControlInput(latent=Timed(video_latent(model, seed=5)), **more)


def joined(model):
    latent = setup_of(model).space.normalise(video_latent(model, seed=5))
    return torch.cat([video_latent(model), latent], dim=1)


def test_a_forward_equals_comfyui_in_fp32(load, comfyui_path):
    model = load(NAME)
    found = forward(model, {CONTROL: control(model)})
    assert relative_error(found, theirs(model, joined(model))) <= FP32_TOLERANCE


def test_a_bf16_forward_is_close_to_comfyui_in_fp32(load, comfyui_path):
    model = load(NAME)
    found = forward(load(NAME, torch.bfloat16), {CONTROL: control(model)})
    assert relative_error(found, theirs(model, joined(model))) <= BF16_TOLERANCE


def test_without_control_its_channels_are_zeros(load, comfyui_path):
    model = load(NAME)
    latent = video_latent(model)
    expected = theirs(model, torch.cat([latent, torch.zeros_like(latent)], dim=1))
    assert relative_error(forward(model, {}), expected) <= FP32_TOLERANCE


def test_control_outside_its_steps_is_as_if_there_were_none(load):
    assert control(load(NAME), steps=StepRange(0.0, 0.25)).at(3, 4) is None


def test_control_changes_the_prediction(load):
    model = load(NAME)
    assert relative_error(forward(model, {CONTROL: control(model)}), forward(model, {})) > 1e-2


def test_row_chunks_change_nothing_but_rounding(load):
    model = load(NAME)
    found = forward(model, {CONTROL: control(model)}, row_chunks=3)
    assert relative_error(found, forward(model, {CONTROL: control(model)})) <= FP32_TOLERANCE


@pytest.mark.parametrize(
    ("name", "is_one"),
    [(NAME, True), ("wan21_t2v", False), ("wan21_fun_camera", False), ("wan21_fun_control", False)],
)
def test_a_file_is_recognised_by_its_channels(fun_files, name, is_one):
    assert FAMILY.is_in(detect(Checkpoint.open(fun_files / f"tiny_{name}_fp32.safetensors"))) is is_one
