"""VACE through the queue of a real server: module and full checkpoint, references, chains, errors."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make

from .graphs import decode, node, text_to_latent, vae_loader

LATENT, IMAGES = ["sampler", 0], ["decode", 0]
MODULE, FULL = "tiny_vace_module_fp32.safetensors", "tiny_wan21_vace_full_fp32.safetensors"
WIDTH, HEIGHT, FRAMES = 80, 64, 5
TOLERANCE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def vace_models(comfy):
    make.write(comfy.base / "models", (make.family_files.VACE,))


@pytest.fixture(scope="module")
def given(comfy):
    """A node that gives pictures: the frames of a video."""
    images = torch.rand(FRAMES, 48, 48, 3, generator=torch.Generator().manual_seed(3))
    return comfy.put_tensors(image=images)


def vace(name="embeds", /, **inputs):
    return {
        name: node(
            "WanVideoVACEEncode",
            **{
                "vae": ["vae", 0],
                "width": WIDTH,
                "height": HEIGHT,
                "num_frames": FRAMES,
                "strength": 1.0,
                "vace_start_percent": 0.0,
                "vace_end_percent": 1.0,
                "tiled_vae": False,
                "reference_layout": "separate frames",
                **inputs,
            },
        )
    }


def graph(given, *encoders, loader=None, model="tiny_wan21_t2v_fp32.safetensors", **sampler):
    graph = text_to_latent(model=model, loader=loader, image_embeds=["embeds", 0], steps=2, **sampler)
    module = {"module": node("WanVideoVACEModelSelect", vace_model=MODULE)}
    nodes = {key: value for encoder in encoders for key, value in encoder.items()}
    del graph["size"]
    return {**graph, **module, "vae": vae_loader(), "given": given, **nodes}


WITH_MODULE = {"extra_model": ["module", 0]}
VIDEO = {"input_frames": ["given", 1]}


def latent_of(comfy, prompt):
    run = comfy.run(prompt, keep={"latent": LATENT})
    assert run.status == "success", run.message
    return run.kept["latent"].tensors["samples"]


def difference(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def with_module(comfy, given):
    return latent_of(comfy, graph(given, vace(**VIDEO), loader=WITH_MODULE))


def test_the_module_beside_a_model_gives_what_the_full_checkpoint_gives(comfy, given, with_module):
    full = latent_of(comfy, graph(given, vace(**VIDEO), model=FULL))
    assert torch.equal(with_module, full)


def test_strength_zero_is_the_model_without_vace(comfy, given, with_module):
    without = latent_of(comfy, text_to_latent(steps=2, size=(WIDTH, HEIGHT, FRAMES)))
    off = latent_of(comfy, graph(given, vace(**VIDEO, strength=0.0), loader=WITH_MODULE))
    assert torch.equal(off, without)
    assert difference(with_module, without) > 1e-2


def test_two_chained_encoders_at_half_the_strength_are_one(comfy, given, with_module):
    half = {**VIDEO, "strength": 0.5}
    chain = vace("first", **half), vace(**half, prev_vace_embeds=["first", 0])
    found = latent_of(comfy, graph(given, *chain, loader=WITH_MODULE))
    assert difference(found, with_module) < TOLERANCE


def test_references_lead_the_latent_and_are_not_in_the_pictures(comfy, given):
    prompt = graph(given, vace(ref_images=["given", 1]), loader=WITH_MODULE)
    prompt["decode"] = decode(["vae", 0], LATENT)
    run = comfy.run(prompt, keep={"latent": LATENT, "images": IMAGES})
    assert run.status == "success", run.message
    assert run.kept["latent"].tensors["samples"].shape == (1, 16, 2 + FRAMES, HEIGHT // 8, WIDTH // 8)
    assert run.kept["images"].tensor.shape == (FRAMES, HEIGHT, WIDTH, 3)


def test_a_list_of_strengths_has_one_for_each_step(comfy, given, with_module):
    prompt = graph(given, vace(**VIDEO, strength=["strengths", 0]), loader=WITH_MODULE)
    prompt["strengths"] = node(
        "CreateScheduleFloatList",
        **{
            "steps": 2,
            "start_value": 1.0,
            "end_value": 1.0,
            "default_value": 1.0,
            "interpolation": "linear",
            "start_percent": 0.0,
            "end_percent": 1.0,
        },
    )
    assert torch.equal(latent_of(comfy, prompt), with_module)


def test_embeds_into_a_model_without_vace_are_refused_with_what_to_do(comfy, given):
    run = comfy.run(graph(given, vace(**VIDEO)), keep={"latent": LATENT})
    assert run.status == "error"
    assert "its VACE module: choose the file in WanVideo VACE Module Select" in run.message
