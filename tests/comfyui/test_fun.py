"""Fun Control, Fun Camera and control LoRAs through the queue."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make

from .graphs import node, text_to_latent

LATENT = ["sampler", 0]
SIZE = (80, 64, 9)
NAMES = (
    "wan21_fun_control",
    "wan22_fun_control",
    "wan22_fun_control_5b",
    "wan21_fun_camera",
    "wan22_fun_camera",
    "wan22_fun_camera_5b",
    "wan21_control_lora_merged",
)


@pytest.fixture(scope="module", autouse=True)
def fun_models(comfy):
    make.write(comfy.base / "models", [file_of(name) for name in NAMES])


def file_of(name):
    return f"tiny_{name}_fp32.safetensors"


def clip(frames=3, channels=16, seed=3):
    shape = (1, channels, frames, *((8, 10) if channels == 16 else (4, 6)))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def graph(name, *, size=SIZE, embeds, **nodes):
    """Text to a latent with embeds of the given nodes."""
    prompt = text_to_latent(model=file_of(name), size=size, steps=2, cfg=1.0, image_embeds=embeds)
    return {**prompt, **nodes}


def control_graph(comfy, name, *, latent=None, reference=None, size=SIZE, **inputs):
    """A control video, joined to an empty video."""
    values = {"start_percent": 0.0, "end_percent": 1.0, **inputs}
    nodes = {
        "clip": comfy.put_tensors(samples=clip() if latent is None else latent),
        "control": node("WanVideoControlEmbeds", latents=["clip", 0], **values),
    }
    if reference is not None:
        nodes["picture"] = comfy.put_tensors(samples=reference)
        nodes["control"]["inputs"]["fun_ref_image"] = ["picture", 0]
    prompt = graph(name, size=size, embeds=["size", 0], **nodes)
    prompt["size"]["inputs"]["control_embeds"] = ["control", 0]
    return prompt


def camera_graph(name, *, size=SIZE, preset="Zoom In", **inputs):
    """A camera of ComfyUI's node."""
    width, height, frames = size
    values = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, **inputs}
    move = node(
        "WanCameraEmbedding", camera_pose=preset, width=width, height=height, length=frames, speed=2.0
    )
    camera = node("WanVideoFunCameraEmbeds", poses=["move", 0], width=width, height=height, **values)
    return graph(name, size=size, embeds=["camera", 0], move=move, camera=camera)


def run_of(comfy, prompt):
    return comfy.run(prompt, keep={"latent": LATENT})


def latent_of(comfy, prompt):
    run = run_of(comfy, prompt)
    assert run.status == "success", run.message
    return run.kept["latent"].tensors["samples"]


def difference(first, second):
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize("name", ["wan21_fun_control", "wan22_fun_control", "wan21_control_lora_merged"])
def test_a_control_video_has_an_effect(comfy, name):
    with_control = latent_of(comfy, control_graph(comfy, name))
    without = latent_of(comfy, control_graph(comfy, name, start_percent=0.6, end_percent=0.7))
    assert with_control.shape == (1, 16, 3, 8, 10)
    assert difference(with_control, without) > 1e-2


def test_a_reference_has_an_effect_and_leaves_the_size(comfy):
    plain = latent_of(comfy, control_graph(comfy, "wan22_fun_control"))
    found = latent_of(comfy, control_graph(comfy, "wan22_fun_control", reference=clip(1, seed=4)))
    assert found.shape == plain.shape
    assert difference(found, plain) > 1e-2


def test_the_5b_takes_control_of_its_own_vae(comfy):
    prompt = control_graph(comfy, "wan22_fun_control_5b", latent=clip(3, 48), size=(96, 64, 9))
    assert latent_of(comfy, prompt).shape == (1, 48, 3, 4, 6)


@pytest.mark.parametrize("fit", ["hold", "loop", ""])
def test_a_short_clip_is_fitted_to_the_video(comfy, fit):
    run = run_of(comfy, control_graph(comfy, "wan22_fun_control", latent=clip(2), length_fit=fit))
    assert run.status == "success", run.message
    assert run.kept["latent"].tensors["samples"].shape[2] == 3
    assert "the control video has 5 frames, the video 9" in run.log


def test_a_video_can_end_with_its_control_video(comfy):
    prompt = control_graph(comfy, "wan22_fun_control", latent=clip(2), length_fit="trim")
    assert latent_of(comfy, prompt).shape[2] == 2


def test_another_length_fit_is_refused_by_name(comfy):
    run = run_of(comfy, control_graph(comfy, "wan22_fun_control", length_fit="stretch"))
    assert run.status == "refused"
    assert "stretch" in run.message


def test_control_of_another_size_is_resized_and_said(comfy):
    run = run_of(comfy, control_graph(comfy, "wan22_fun_control", size=(64, 64, 9)))
    assert run.status == "success", run.message
    assert "control latents: made for 80x64, the video is 64x64; resized" in run.log


def test_control_of_the_other_vae_is_refused_with_both_names(comfy):
    run = run_of(comfy, control_graph(comfy, "wan22_fun_control", latent=clip(3, 48)))
    assert run.status == "error"
    assert "Wan 2.2 VAE" in run.message
    assert "Wan 2.1 VAE" in run.message


def test_a_model_without_control_is_refused_with_those_that_have_it(comfy):
    run = run_of(comfy, control_graph(comfy, "wan21_fun_camera"))
    assert run.status == "error"
    assert "Fun Control" in run.message
    assert "control LoRA" in run.message


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("wan21_fun_camera", (1, 16, 3, 8, 10), SIZE),
        ("wan22_fun_camera", (1, 16, 3, 8, 10), SIZE),
        ("wan22_fun_camera_5b", (1, 48, 3, 4, 6), (96, 64, 9)),
    ],
)
def test_a_camera_of_comfyui_s_node_moves(comfy, name, shape, size):
    moving = latent_of(comfy, camera_graph(name, size=size))
    still = latent_of(comfy, camera_graph(name, size=size, preset="Static"))
    assert moving.shape == shape
    assert difference(moving, still) > 1e-3


def test_a_camera_of_strength_0_is_none(comfy):
    plain = latent_of(comfy, graph("wan22_fun_camera", embeds=["size", 0]))
    assert torch.equal(latent_of(comfy, camera_graph("wan22_fun_camera", strength=0.0)), plain)
