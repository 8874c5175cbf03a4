"""Attention modes through the queue."""

import pytest
import torch

from .graphs import node, text_to_latent

SIZE = (128, 128, 33)  # 9 frames of 64 tokens
LATENT = ["sampler", 0]
RADIAL = {
    "dense_attention_mode": "sdpa",
    "dense_blocks": 0,
    "dense_vace_blocks": 0,
    "dense_timesteps": 0,
    "decay_factor": 0.2,
    "block_size": 64,
}


def graph(mode="sdpa", setting=None):
    prompt = text_to_latent(
        size=SIZE, loader={"attention_mode": mode}, model_link=["setting", 0] if setting else None
    )
    return {**prompt, "setting": setting} if setting else prompt


def run_of(comfy, prompt):
    run = comfy.run(prompt, keep={"latent": LATENT})
    assert run.status == "success", run.message
    return run


def samples(run):
    return run.kept["latent"].tensors["samples"]


@pytest.fixture(scope="module")
def plain(comfy):
    return samples(run_of(comfy, graph()))


def radial(**inputs):
    return graph(
        "radial_sage_attention",
        node("WanVideoSetRadialAttention", model=["model", 0], **{**RADIAL, **inputs}),
    )


def test_auto_names_its_choice_and_gives_the_result_of_sdpa(comfy, plain):
    run = run_of(comfy, graph("auto"))
    assert "attention auto (sdpa)" in run.log
    assert torch.equal(samples(run), plain)


def test_comfyui_lends_its_attention(comfy, plain):
    found = samples(run_of(comfy, graph("comfy")))
    assert torch.allclose(found, plain, rtol=1e-3, atol=1e-3)


def test_radial_attention_runs_without_its_kernel_says_so_and_changes_the_result(comfy, plain):
    run = run_of(comfy, radial())
    assert "the sparse sage kernel is not available" in run.log
    found = samples(run)
    assert found.isfinite().all()
    assert not torch.allclose(found, plain, atol=1e-3)


def test_radial_attention_is_dense_in_listed_blocks(comfy, plain):
    prompt = radial(dense_blocks=["blocks", 0])
    prompt["blocks"] = node("WanVideoBlockList", blocks="0-3")
    assert torch.equal(samples(run_of(comfy, prompt)), plain)


def test_radial_attention_is_dense_in_the_first_steps(comfy, plain):
    assert torch.equal(samples(run_of(comfy, radial(dense_timesteps=3))), plain)


def test_ultravico_says_what_computes_it_and_follows_alpha(comfy):
    def with_alpha(alpha):
        setting = node("WanVideoUltraVicoSettings", model=["model", 0], alpha=alpha)
        prompt = graph("sageattn_ultravico", setting)
        prompt["size"]["inputs"].update(width=64, height=64, num_frames=57)
        return run_of(comfy, prompt)

    unchanged, faded = with_alpha(1.0), with_alpha(0.5)
    assert "the sage kernel with decay and sageattention is not installed" in faded.log
    assert samples(faded).isfinite().all()
    assert not torch.allclose(samples(faded), samples(unchanged), atol=1e-3)


def test_an_override_of_no_step_of_the_run_changes_nothing(comfy, plain):
    setting = node(
        "WanVideoSetAttentionModeOverride",
        model=["model", 0],
        attention_mode="radial_sage_attention",
        start_step=50,
        end_step=60,
        verbose=True,
    )
    run = run_of(comfy, graph("sdpa", setting))
    assert "attention radial_sage_attention in steps 50 to 59, blocks all" in run.log
    assert torch.equal(samples(run), plain)
