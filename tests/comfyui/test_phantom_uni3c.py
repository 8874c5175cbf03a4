"""Phantom, Time-to-Move and Uni3C through the queue of a real server."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import family_files, make

from .graphs import node, text_to_latent

LATENT = ["sampler", 0]
PHANTOM = "tiny_wan21_phantom_fp32.safetensors"
UNI3C = "tiny_uni3c_controlnet_fp32.safetensors"
SIZE = (80, 64, 9)


@pytest.fixture(scope="module", autouse=True)
def family_models(comfy):
    make.write(comfy.base / "models", (family_files.PHANTOM, family_files.UNI3C))


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def result_of(comfy, prompt):
    run = comfy.run(prompt, keep={"latent": LATENT})
    assert run.status == "success", run.message
    return run.kept["latent"].tensors["samples"], run.log


def refusal_of(comfy, prompt):
    run = comfy.run(prompt, keep={"latent": LATENT})
    assert run.status in ("error", "refused")
    return run.message


def with_phantom(comfy, *, frames=9, references=1, seed=21, **inputs):
    """A graph with references of 80x64."""
    prompt = text_to_latent(model=PHANTOM, seed=seed, image_embeds=["phantom", 0])
    names = [f"phantom_latent_{number}" for number in range(1, references + 1)]
    for number, name in enumerate(names, 1):
        prompt[name] = comfy.put_tensors(samples=normal(1, 16, 1, 8, 10, seed=number))
    given = {
        "num_frames": frames,
        "phantom_cfg_scale": 5.0,
        "phantom_start_percent": 0.0,
        "phantom_end_percent": 1.0,
        **{name: [name, 0] for name in names},
    }
    return {**prompt, "phantom": node("WanVideoPhantomEmbeds", **{**given, **inputs})}


def with_movement(comfy, **inputs):
    prompt = text_to_latent(size=SIZE, seed=31, steps=4, image_embeds=["movement", 0])
    prompt["crude"] = comfy.put_tensors(samples=normal(1, 16, 3, 8, 10))
    prompt["mask"] = node("SolidMask", value=1.0, width=80, height=64)
    given = {
        "embeds": ["size", 0],
        "reference_latents": ["crude", 0],
        "mask": ["mask", 0],
        "start_step": 1,
        "end_step": 2,
    }
    return {**prompt, "movement": node("WanVideoAddTTMLatents", **{**given, **inputs})}


def with_uni3c(comfy, *, file=UNI3C, frames=3, loader=None, **inputs):
    prompt = text_to_latent(size=SIZE, seed=41, uni3c_embeds=["uni3c", 0])
    prompt["render"] = comfy.put_tensors(samples=normal(1, 16, frames, 8, 10))
    prompt["controlnet"] = node(
        "WanVideoUni3C_ControlnetLoader",
        **{
            "model": file,
            "base_precision": "fp32",
            "quantization": "disabled",
            "load_device": "offload_device",
            "attention_mode": "sdpa",
            **(loader or {}),
        },
    )
    given = {
        "controlnet": ["controlnet", 0],
        "render_latent": ["render", 0],
        "strength": 1.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
    }
    return {**prompt, "uni3c": node("WanVideoUni3C_embeds", **{**given, **inputs})}


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_phantom_makes_the_whole_length_in_three_passes(comfy):
    latent, log = result_of(comfy, with_phantom(comfy, references=2, guidance="three passes"))
    assert latent.shape == (1, 16, 3, 8, 10)
    assert "negative/phantom/positive" in log


def test_a_prompt_of_the_predecessor_is_cut_as_there_and_that_is_said(comfy):
    latent, log = result_of(comfy, with_phantom(comfy))
    assert latent.shape == (1, 16, 2, 8, 10)
    assert "set guidance to 'three passes'" in log


def test_the_scale_of_phantom_has_an_effect_in_three_passes(comfy):
    first, _ = result_of(comfy, with_phantom(comfy, guidance="three passes"))
    second, _ = result_of(comfy, with_phantom(comfy, guidance="three passes", phantom_cfg_scale=2.0))
    assert relative_error(second, first) > 1e-2


def test_the_empty_value_of_phantoms_guidance_is_accepted(comfy):
    latent, _ = result_of(comfy, with_phantom(comfy, guidance=""))
    assert latent.shape[2] == 2


def test_phantom_without_frames_left_is_refused_with_what_to_do(comfy):
    message = refusal_of(comfy, with_phantom(comfy, frames=5, references=2))
    assert "choose 'three passes', or a longer video" in message


def test_a_movement_begins_at_its_step(comfy):
    _, log = result_of(comfy, with_movement(comfy))
    assert "steps 1 to 4 of 4" in log


def test_a_movement_to_the_last_step_is_the_crude_video(comfy):
    latent, _ = result_of(comfy, with_movement(comfy, end_step=4))
    torch.testing.assert_close(latent, normal(1, 16, 3, 8, 10), atol=1e-4, rtol=1e-4)


def test_a_movement_that_ends_before_it_begins_is_refused(comfy):
    assert "lies before start_step" in refusal_of(comfy, with_movement(comfy, start_step=3))


def test_uni3c_changes_the_video_and_strength_0_does_not(comfy):
    plain, _ = result_of(comfy, text_to_latent(size=SIZE, seed=41))
    steered, _ = result_of(comfy, with_uni3c(comfy))
    off, _ = result_of(comfy, with_uni3c(comfy, strength=0.0))
    assert relative_error(steered, plain) > 1e-2
    assert torch.equal(off, plain)


def test_uni3c_in_8_bit_is_near_the_file(comfy):
    steered, _ = result_of(comfy, with_uni3c(comfy))
    found, _ = result_of(comfy, with_uni3c(comfy, loader={"quantization": "fp8_e4m3fn"}))
    assert 0 < relative_error(found, steered) < 5e-2


def test_a_mask_and_a_longer_render_are_taken(comfy):
    prompt = with_uni3c(comfy, frames=5, render_mask=["mask", 0])
    prompt["mask"] = node("SolidMask", value=1.0, width=80, height=64)
    latent, log = result_of(comfy, prompt)
    assert latent.shape == (1, 16, 3, 8, 10)
    assert "the render has 17 frames, the video 9: the last 8 are not used" in log


def test_a_missing_controlnet_is_refused_by_name(comfy):
    assert "no-such-file" in refusal_of(comfy, with_uni3c(comfy, file="no-such-file.safetensors"))


def test_phantom_uni3c_and_a_movement_go_together(comfy):
    prompt = {**with_movement(comfy), **with_uni3c(comfy), **with_phantom(comfy, guidance="three passes")}
    prompt["movement"] = with_movement(comfy, embeds=["phantom", 0])["movement"]
    prompt["sampler"]["inputs"].update(image_embeds=["movement", 0], uni3c_embeds=["uni3c", 0])
    latent, _ = result_of(comfy, prompt)
    assert latent.shape == (1, 16, 3, 8, 10)
