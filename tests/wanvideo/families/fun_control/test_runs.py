"""Whole runs of Fun models: what is inactive changes nothing, and all is on the device of the run."""

import pytest
import torch
from comfyui_wanvideo.wanvideo import families
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.control import CONTROL, ControlInput
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.fun_camera.cameras import EncodedCamera, camera_of_poses
from comfyui_wanvideo.wanvideo.families.fun_camera.inputs import CAMERA, FunCameraInput
from comfyui_wanvideo.wanvideo.families.fun_control.inputs import FUN_REFERENCE, FunReferenceInput
from comfyui_wanvideo.wanvideo.generation import GenerationRequest, check_request, generate, run_size
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint

from .conftest import TEXT, noise, relative_error, run_state, setup_of, video_latent

STEPS = 4
OFF = StepRange(0.9, 0.95)  # between the steps at 3/4 and 1


def request(model, **inputs):
    schedule = build_schedule("euler", STEPS, 5.0)
    return GenerationRequest(
        geometry=setup_of(model).geometry,
        text=TextEmbeds((TEXT,)),
        schedule=schedule,
        steps=(0, STEPS),
        cfg=1.0,
        seed=7,
        inputs=inputs,
    )


def run(model, **inputs):
    return generate(model, request(model, **inputs), RunOptions(attention=sdpa), device="cpu").latent


def control(model, **more):
    return ControlInput(latent=Timed(video_latent(model, seed=5)), **more)


def camera(**more):
    pose = [0.0, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 1.0, 0, 0, 0.2, 0, 1, 0, 0, 0, 0, 1, 0]
    still = [*pose[:10], 0.0, *pose[11:]]
    return FunCameraInput(camera=camera_of_poses([still, *([pose] * 8)]), **more)


@pytest.mark.parametrize("name", ["wan21_fun_control", "wan22_fun_control", "wan21_control_lora_merged"])
def test_control_outside_its_steps_changes_nothing_bit_for_bit(load, name):
    model = load(name)
    assert torch.equal(run(model, control=control(model, steps=OFF)), run(model))


@pytest.mark.parametrize("name", ["wan21_fun_control", "wan22_fun_control_5b", "wan21_control_lora_merged"])
def test_control_in_the_first_steps_is_neither_all_nor_nothing(load, name):
    model = load(name)
    part = run(model, control=control(model, steps=StepRange(0.0, 0.3)))
    for other in (run(model), run(model, control=control(model))):
        assert relative_error(part, other) > 1e-3


@pytest.mark.parametrize("changes", [{"strength": 0.0}, {"steps": OFF}], ids=["strength 0", "no step"])
@pytest.mark.parametrize("name", ["wan21_fun_camera", "wan22_fun_camera", "wan22_fun_camera_5b"])
def test_a_camera_without_effect_changes_nothing_bit_for_bit(load, name, changes):
    model = load(name)
    assert torch.equal(run(model, camera=camera(**changes)), run(model))


def test_encoded_rays_move_the_camera_as_poses_do(load):
    model = load("wan21_fun_camera")
    geometry, posed = setup_of(model).geometry, camera()
    size = (geometry.height, geometry.width)
    rays = torch.stack([posed.camera.rays(i, size, torch.device("cpu")) for i in range(3)], dim=1)
    encoded = FunCameraInput(camera=EncodedCamera(rays))
    assert torch.equal(run(model, camera=encoded), run(model, camera=posed))


def test_the_memory_plan_counts_the_tokens_of_the_reference_and_the_camera(load):
    model = load("wan22_fun_control")
    reference = FunReferenceInput(latent=noise(1, 16, 1, 6, 10))
    plain, with_reference = (
        run_size(model, request(model)),
        run_size(model, request(model, fun_reference=reference)),
    )
    assert with_reference.tokens - plain.tokens == 15
    moving = load("wan21_fun_camera")
    assert run_size(moving, request(moving, camera=camera())).working_bytes == 45 * 256 * 4


@pytest.mark.parametrize("name", [CONTROL, FUN_REFERENCE])
def test_a_latent_of_the_other_vae_is_refused_before_the_run(load, name):
    model, wrong = load("wan22_fun_control"), noise(1, 48, 3, 3, 5)
    value = ControlInput(latent=Timed(wrong)) if name == CONTROL else FunReferenceInput(latent=wrong)
    with pytest.raises(InputError, match=r"48 channels .* Wan 2\.2 VAE"):
        check_request(model, request(model, **{name: value}))


@pytest.mark.parametrize("name", ["wan22_fun_control", "wan22_fun_camera"])
def test_a_run_touches_tensors_of_its_own_device_only(fun_files, name):
    """On the meta device, where mixing two is an error."""
    pytest.importorskip("comfy_kitchen")
    checkpoint = Checkpoint.open(fun_files / f"tiny_{name}_fp32.safetensors")
    loaded = load_transformer(checkpoint, compute_dtype=torch.bfloat16, extend=families.extend)
    model = loaded.transformer.to("meta")
    inputs = {CAMERA: camera()}
    if name == "wan22_fun_control":
        inputs = {CONTROL: control(model), FUN_REFERENCE: FunReferenceInput(latent=noise(1, 16, 1, 4, 4))}
    setup = setup_of(model, device=torch.device("meta"))
    prepared = {key: value.prepared(setup) for key, value in inputs.items()}
    conditioning = Conditioning(setup.geometry, text=(TEXT,), inputs=prepared)
    with torch.inference_mode():
        velocity = model(video_latent(model).to("meta"), [637.25], conditioning, run_state(row_chunks=3))
    assert velocity.shape == (1, 16, 3, 6, 10)
