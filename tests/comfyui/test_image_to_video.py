"""Image to video through the queue of a real server: Wan 2.1, Wan 2.2, the 5B, first and last frame."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make

from .graphs import VAE, decode, node, text_to_latent, vae_loader

LATENT, IMAGES = ["sampler", 0], ["decode", 0]
I2V, FLF, HIGH, LOW, TI2V = (
    f"tiny_{name}_fp32.safetensors"
    for name in ("wan21_i2v_480", "wan21_flf2v", "wan22_i2v_high", "wan22_i2v_low", "wan22_ti2v_5b")
)
VAE_22 = "tiny_wan22_vae_fp32.safetensors"
CLIP = "tiny_open-clip-xlm-roberta_visual_fp32.safetensors"
WIDTH, HEIGHT, FRAMES = 80, 64, 9
TOLERANCE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def models(comfy):
    make.write(comfy.base / "models", (make.family_files.IMAGE,))


def picture(seed=3, height=64, width=80):
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def start(comfy):
    return comfy.put_tensors(image=picture())


@pytest.fixture(scope="module")
def end(comfy):
    return comfy.put_tensors(image=picture(4))


def image_embeds(**inputs):
    values = {
        "width": WIDTH,
        "height": HEIGHT,
        "num_frames": FRAMES,
        "noise_aug_strength": 0.0,
        "start_latent_strength": 1.0,
        "end_latent_strength": 1.0,
        "force_offload": True,
        "vae": ["vae", 0],
        "start_image": ["start", 1],
        **inputs,
    }
    return node("WanVideoImageToVideoEncode", **values)


def clip_nodes(**pictures):
    return {
        "clip": node("LoadWanVideoClipTextEncoder", model_name=CLIP, precision="fp32"),
        "rows": node(
            "WanVideoClipVisionEncode",
            clip_vision=["clip", 0],
            strength_1=1.0,
            strength_2=1.0,
            crop="center",
            combine_embeds="concat",
            force_offload=True,
            **pictures,
        ),
    }


def graph(start, *, model=I2V, vae=VAE, with_clip=True, sampler=None, more=None, **inputs):
    """A start image to a latent and to pictures."""
    given = {"clip_embeds": ["rows", 0]} if with_clip else {}
    return {
        **text_to_latent(model=model, image_embeds=["embeds", 0], steps=2, **(sampler or {})),
        **(clip_nodes(image_1=["start", 1]) if with_clip else {}),
        "start": start,
        "vae": vae_loader(vae),
        "embeds": image_embeds(**{**given, **inputs}),
        "decode": decode(["vae", 0], LATENT),
        **(more or {}),
    }


def run_of(comfy, prompt):
    run = comfy.run(prompt, keep={"latent": LATENT, "images": IMAGES})
    assert run.status == "success", run.message
    return run


def latent_of(comfy, prompt):
    run = comfy.run(prompt, keep={"latent": LATENT})
    assert run.status == "success", run.message
    return run.kept["latent"].tensors["samples"]


def difference(first, second):
    return float((first - second).norm() / second.norm())


def test_a_start_image_becomes_a_video(comfy, start):
    run = run_of(comfy, graph(start))
    assert run.kept["latent"].tensors["samples"].shape == (1, 16, 3, 8, 10)
    assert run.kept["images"].tensor.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert "no clip_embeds" not in run.log


def test_another_picture_gives_another_video(comfy, start, end):
    found = latent_of(comfy, graph(end, with_clip=False))
    assert difference(found, latent_of(comfy, graph(start, with_clip=False))) > 1e-3


def test_comfyuis_vae_and_image_encode_node_give_the_same(comfy, start):
    """The output of ComfyUI's CLIP Vision Encode is taken; its VAE may compute in less than fp32."""
    cores = {
        "rows": node("CLIPVisionEncode", clip_vision=["clip", 0], image=["start", 1], crop="center"),
        "vae": node("VAELoader", vae_name=VAE),
    }
    ours = latent_of(comfy, graph(start))
    assert difference(latent_of(comfy, graph(start, more=cores)), ours) < 2e-2


def test_without_clip_rows_it_runs_with_one_warning(comfy, start):
    run = run_of(comfy, graph(start, with_clip=False, sampler={"seed": 31}))
    assert run.log.count("no clip_embeds are connected") == 1


def test_an_end_image_of_its_own_is_not_in_the_pictures(comfy, start, end):
    prompt = graph(start, end_image=["end", 1], fun_or_fl2v_model=False, more={"end": end})
    run = run_of(comfy, prompt)
    assert run.kept["latent"].tensors["samples"].shape[2] == 4
    assert run.kept["images"].tensor.shape[0] == FRAMES


def test_references_in_front_are_not_in_the_pictures(comfy, start):
    extra = comfy.put_tensors(
        samples=torch.randn(1, 16, 2, 8, 10, generator=torch.Generator().manual_seed(5))
    )
    run = run_of(comfy, graph(start, extra_latents=["extra", 0], more={"extra": extra}))
    assert run.kept["latent"].tensors["samples"].shape[2] == 5
    assert run.kept["images"].tensor.shape[0] == FRAMES


def test_first_and_last_frame(comfy, start, end):
    more = {"end": end, **clip_nodes(image_1=["start", 1], image_2=["end", 1])}
    run = run_of(comfy, graph(start, model=FLF, end_image=["end", 1], more=more))
    assert run.kept["images"].tensor.shape[0] == FRAMES


def test_a_single_frame(comfy, start):
    assert run_of(comfy, graph(start, num_frames=1)).kept["images"].tensor.shape[0] == 1


def test_the_two_models_of_wan22_share_the_embeds(comfy, start):
    first = graph(start, model=HIGH, with_clip=False, sampler={"end_step": 1})
    rest = text_to_latent(
        model=LOW, image_embeds=["embeds", 0], steps=2, start_step=1, samples=LATENT, model_link=["low", 0]
    )
    chain = {**first, "low": {**first["model"], "inputs": {**first["model"]["inputs"], "model": LOW}}}
    run = comfy.run({**chain, "rest": rest["sampler"]}, keep={"latent": ["rest", 0]})
    assert run.status == "success", run.message
    whole = latent_of(comfy, graph(start, model=HIGH, with_clip=False))
    found = run.kept["latent"].tensors["samples"]
    assert found.shape == whole.shape
    assert difference(found, whole) > 1e-3


def ti2v(start, **more):
    return graph(start, model=TI2V, vae=VAE_22, with_clip=False, width=96, height=64, **more)


def test_the_5b_model_keeps_the_start_image(comfy, start):
    prompt = ti2v(start)
    prompt["small"] = node(
        "ImageScale", image=["start", 1], upscale_method="lanczos", width=96, height=64, crop="disabled"
    )
    sizes = {"tile_x": 272, "tile_y": 272, "tile_stride_x": 144, "tile_stride_y": 128}
    prompt["first"] = node(
        "WanVideoEncode", vae=["vae", 0], image=["small", 0], enable_vae_tiling=False, **sizes
    )
    run = comfy.run(prompt, keep={"latent": LATENT, "images": IMAGES, "first": ["first", 0]})
    assert run.status == "success", run.message
    found, first = (run.kept[name].tensors["samples"] for name in ("latent", "first"))
    assert difference(found[:, :, :1], first) < TOLERANCE
    assert run.kept["images"].tensor.shape == (FRAMES, 64, 96, 3)
    assert "latent frames [0] stay as given" in run.log


def test_the_5b_model_with_the_picture_as_extra_latent_gives_the_same(comfy, start):
    whole = latent_of(comfy, ti2v(start))
    prompt = ti2v(start)
    sizes = {"tile_x": 272, "tile_y": 272, "tile_stride_x": 144, "tile_stride_y": 128}
    prompt["small"] = node(
        "ImageScale", image=["start", 1], upscale_method="lanczos", width=96, height=64, crop="disabled"
    )
    prompt["first"] = node(
        "WanVideoEncode", vae=["vae", 0], image=["small", 0], enable_vae_tiling=False, **sizes
    )
    prompt["embeds"] = node("WanVideoEmptyEmbeds", width=96, height=64, num_frames=FRAMES)
    prompt["embeds"]["inputs"]["extra_latents"] = ["first", 0]
    assert difference(latent_of(comfy, prompt), whole) < TOLERANCE


def test_the_deprecated_node_still_makes_a_video(comfy, start):
    prompt = graph(start)
    prompt["embeds"] = node(
        "WanVideoImageClipEncode",
        clip_vision=["clip", 0],
        image=["start", 1],
        vae=["vae", 0],
        generation_width=WIDTH,
        generation_height=HEIGHT,
        num_frames=FRAMES,
    )
    found = latent_of(comfy, prompt)
    assert difference(found, latent_of(comfy, graph(start))) < TOLERANCE


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": TI2V}, "16 channels and comes from the Wan 2.1 VAE"),
        ({"model": I2V, "vae": VAE_22, "width": 96}, "48 channels and comes from the Wan 2.2 VAE"),
        (
            {"model": "tiny_wan21_t2v_fp32.safetensors"},
            "an image-to-video model; this one makes video from text",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_said_before_sampling(comfy, start, changes, said):
    run = comfy.run(graph(start, with_clip=False, **changes), keep={"latent": LATENT})
    assert run.status == "error"
    assert said in run.message


def test_a_model_that_needs_a_picture_says_so(comfy):
    run = comfy.run(text_to_latent(model=I2V), keep={"latent": LATENT})
    assert run.status == "error"
    assert "needs a start image; connect WanVideo ImageToVideo Encode" in run.message
