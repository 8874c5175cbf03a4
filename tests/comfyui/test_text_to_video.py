"""Text to video through the queue: it runs, is told about, repeats, chains and can be stopped."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch

from .graphs import MODEL, TEXT_ENCODER, VAE, decode, node, text_to_images, text_to_latent, vae_loader

ROOT = Path(__file__).resolve().parents[2]
LATENT = ["sampler", 0]


def latent_of(comfy, prompt, link=LATENT):
    run = comfy.run(prompt, keep={"latent": link})
    assert run.status == "success", run.message
    return run.kept["latent"].tensors["samples"]


def reported(total):
    """ComfyUI leaves out updates less than 0.1 s apart, except the first and the last."""
    middle = range(2, total)
    return [
        [(1, total), *((value, total) for value in kept), (total, total)]
        for count in range(len(middle) + 1)
        for kept in combinations(middle, count)
    ]


def relative_error(found, expected):
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def test_text_becomes_pictures_of_the_asked_size(comfy):
    run = comfy.run(text_to_images(), keep={"images": ["decode", 0]})
    assert run.status == "success", run.message
    images = run.kept["images"].tensor
    assert images.shape == (5, 64, 80, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.01


def test_the_shipped_example_makes_a_video_with_the_tiny_models(comfy):
    prompt = json.loads((ROOT / "example_workflows" / "api" / "t2v.json").read_text(encoding="utf-8"))
    prompt["model"]["inputs"].update(model=MODEL)
    prompt["text_encoder"]["inputs"].update(model_name=TEXT_ENCODER)
    prompt["vae"]["inputs"].update(model_name=VAE)
    prompt["size"]["inputs"].update(width=80, height=64, num_frames=5)
    prompt["sampler"]["inputs"].update(steps=2)
    run = comfy.run(prompt)
    assert run.status == "success", run.message
    (video,) = [file for file in run.result.files() if file.filename.endswith(".mp4")]
    assert comfy.output(video).stat().st_size > 500


def test_every_step_is_reported(comfy):
    run = comfy.run(text_to_latent(seed=101, steps=4), keep={"latent": LATENT})
    assert run.progress("sampler") in reported(4)


def test_decoding_reports_every_latent_frame(comfy):
    run = comfy.run(text_to_images(seed=111), keep={"images": ["decode", 0]})
    assert run.progress("decode") in reported(2)


def test_the_log_says_what_runs_in_one_line(comfy):
    run = comfy.run(text_to_latent(seed=102), keep={"latent": LATENT})
    (line,) = [line for line in run.log.splitlines() if "tokens;" in line]
    for part in (MODEL, "80x64", "5 frames", "40 tokens", "euler", "3 steps", "seed 102", "attention sdpa"):
        assert part in line


def test_the_same_graph_gives_the_same_latent_in_a_new_run(comfy):
    first = latent_of(comfy, text_to_latent(seed=103))
    comfy.free()
    assert torch.equal(latent_of(comfy, text_to_latent(seed=103)), first)


@pytest.mark.parametrize("scheduler", ["euler", "lcm"])
def test_two_chained_samplers_equal_one(comfy, scheduler):
    prompt = text_to_latent(scheduler=scheduler, steps=4)
    half = text_to_latent(scheduler=scheduler, steps=4, end_step=2)
    rest = text_to_latent(scheduler=scheduler, steps=4, start_step=2, samples=LATENT)
    whole = latent_of(comfy, prompt)
    chained = latent_of(comfy, {**half, "rest": rest["sampler"]}, ["rest", 0])
    assert relative_error(chained, whole) <= 1e-5


@pytest.mark.parametrize("scheduler", ["unipc", "dpm++", "dpm++_sde"])
def test_two_chained_samplers_that_continue_equal_one(comfy, scheduler):
    options = {"scheduler": scheduler, "steps": 4, "solver_history": "continue"}
    whole = latent_of(comfy, text_to_latent(**options))
    half = text_to_latent(**options, end_step=2)
    rest = text_to_latent(**options, start_step=2, samples=LATENT)
    chained = latent_of(comfy, {**half, "rest": rest["sampler"]}, ["rest", 0])
    assert relative_error(chained, whole) <= 1e-5


def test_the_settings_pair_equals_the_sampler(comfy):
    prompt = text_to_latent(seed=104)
    whole = latent_of(comfy, prompt)
    settings = {**prompt, "settings": node("WanVideoSamplerSettings", **prompt["sampler"]["inputs"])}
    del settings["sampler"]
    settings["run"] = node("WanVideoSamplerFromSettings", sampler_inputs=["settings", 0])
    assert torch.equal(latent_of(comfy, settings, ["run", 0]), whole)


def test_the_second_sampler_node_equals_the_first(comfy):
    prompt = text_to_latent(seed=105, rope_function="default")
    whole = latent_of(comfy, prompt)
    second = {name: prompt[name] for name in ("model", "t5", "text", "size")}
    second["schedule"] = node(
        "WanVideoSchedulerv2", scheduler="euler", steps=3, shift=5.0, start_step=0, end_step=-1
    )
    second["extra"] = node("WanVideoSamplerExtraArgs", rope_function="default")
    second["run"] = node(
        "WanVideoSamplerv2",
        model=["model", 0],
        image_embeds=["size", 0],
        text_embeds=["text", 0],
        cfg=4.0,
        seed=105,
        force_offload=True,
        scheduler=["schedule", 0],
        extra_args=["extra", 0],
    )
    assert torch.equal(latent_of(comfy, second, ["run", 0]), whole)


def test_a_list_of_cfg_gives_each_step_its_own(comfy):
    def with_list(start, end):
        prompt = text_to_latent(seed=106, cfg=["list", 0])
        prompt["list"] = node(
            "CreateCFGScheduleFloatList",
            steps=3,
            cfg_scale_start=start,
            cfg_scale_end=end,
            interpolation="linear",
            start_percent=0.0,
            end_percent=1.0,
        )
        return latent_of(comfy, prompt)

    assert torch.equal(with_list(4.0, 4.0), latent_of(comfy, text_to_latent(seed=106)))
    assert not torch.equal(with_list(6.0, 2.0), with_list(4.0, 4.0))


def test_cancel_stops_within_the_run_and_the_next_run_works(comfy):
    short, long = text_to_latent(seed=107, steps=3), text_to_latent(seed=107, steps=400)
    expected = latent_of(comfy, short)

    def stop_at_the_first_step(event):
        if event.name == "progress" and event.content.get("node") == "sampler":
            comfy.client.interrupt()

    comfy.free()
    stopped = comfy.run(long, keep={"x": LATENT}, on_event=stop_at_the_first_step)
    assert stopped.status == "interrupted"
    assert stopped.progress("sampler")[-1][0] < 400
    assert torch.equal(latent_of(comfy, short), expected)


def test_core_vae_shows_our_latent_as_our_vae_does(comfy):
    prompt = {
        **text_to_images(seed=108),
        "core_vae": node("VAELoader", vae_name=VAE),
        "core": node("VAEDecode", samples=LATENT, vae=["core_vae", 0]),
    }
    run = comfy.run(prompt, keep={"ours": ["decode", 0], "core": ["core", 0]})
    assert run.status == "success", run.message
    assert (run.kept["ours"].tensor - run.kept["core"].tensor).abs().max() < 2e-2


def test_our_vae_takes_what_cores_vae_encodes(comfy):
    image = comfy.put_tensors(image=torch.rand(5, 64, 80, 3))
    prompt = {
        "image": image,
        "core_vae": node("VAELoader", vae_name=VAE),
        "latent": node("VAEEncode", pixels=["image", 1], vae=["core_vae", 0]),
        "vae": vae_loader(),
        "ours": decode(["vae", 0], ["latent", 0]),
        "core": node("VAEDecode", samples=["latent", 0], vae=["core_vae", 0]),
    }
    run = comfy.run(prompt, keep={"ours": ["ours", 0], "core": ["core", 0]})
    assert run.status == "success", run.message
    assert (run.kept["ours"].tensor - run.kept["core"].tensor).abs().max() < 2e-2


def test_a_core_vae_socket_decodes_in_our_node(comfy):
    prompt = {
        **text_to_images(seed=109),
        "core_vae": node("VAELoader", vae_name=VAE),
        "through": decode(["core_vae", 0], LATENT),
    }
    run = comfy.run(prompt, keep={"ours": ["decode", 0], "through": ["through", 0]})
    assert run.status == "success", run.message
    assert (run.kept["ours"].tensor - run.kept["through"].tensor).abs().max() < 2e-2


def test_unload_all_models_and_a_new_run_give_the_same_latent(comfy):
    first = latent_of(comfy, text_to_latent(seed=110, force_offload=False))
    comfy.free()
    assert torch.equal(latent_of(comfy, text_to_latent(seed=110, force_offload=False)), first)
