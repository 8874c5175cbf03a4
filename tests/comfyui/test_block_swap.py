"""Every way to say how much of a model stays on the device, through the queue: the result never changes."""

import pytest
import torch

from .graphs import node, text_to_latent

LATENT = ["sampler", 0]
BLOCKS = 4  # of the tiny model


def block_swap(**inputs):
    values = {"blocks_to_swap": 2, "offload_img_emb": False, "offload_txt_emb": False}
    return node("WanVideoBlockSwap", **{**values, **inputs})


def with_block_swap(**inputs):
    prompt = text_to_latent(seed=21, loader={"block_swap_args": ["swap", 0]})
    return {**prompt, "swap": block_swap(**inputs)}


def run_of(comfy, prompt):
    run = comfy.run(prompt, keep={"latent": LATENT})
    assert run.status == "success", run.message
    return run


@pytest.fixture(scope="module")
def plain(comfy):
    return run_of(comfy, text_to_latent(seed=21)).kept["latent"].tensors["samples"]


def equals(run, plain):
    return torch.equal(run.kept["latent"].tensors["samples"], plain)


@pytest.mark.parametrize(
    "inputs",
    [
        {"blocks_to_swap": 0},
        {"blocks_to_swap": BLOCKS},
        {"prefetch_blocks": 3, "use_non_blocking": True},
        {"offload_img_emb": True, "offload_txt_emb": True},
        {"memory_mode": "resident"},
        {"memory_mode": "stream"},
        {"memory_mode": ""},
    ],
)
def test_block_swap_changes_no_bit_of_the_result(comfy, plain, inputs):
    assert equals(run_of(comfy, with_block_swap(**inputs)), plain)


def test_more_blocks_than_the_model_has_are_said_with_both_numbers(comfy, plain):
    run = run_of(comfy, with_block_swap(blocks_to_swap=48))
    assert "blocks_to_swap is 48, the model has 4 blocks" in run.log
    assert equals(run, plain)


def test_block_swap_debug_logs_the_passes(comfy, plain):
    run = run_of(comfy, with_block_swap(block_swap_debug=True))
    assert "block swap: 6 passes" in run.log  # 3 steps, 2 passes each
    assert equals(run, plain)


@pytest.mark.parametrize("percent", [0.0, 0.5, 1.0])
def test_vram_management_changes_no_bit_of_the_result(comfy, plain, percent):
    prompt = text_to_latent(seed=21, loader={"vram_management_args": ["vram", 0]})
    prompt["vram"] = node("WanVideoVRAMManagement", offload_percent=percent)
    assert equals(run_of(comfy, prompt), plain)


def test_of_two_connected_demands_the_larger_counts_and_is_said(comfy, plain):
    prompt = with_block_swap()
    prompt["model"]["inputs"]["vram_management_args"] = ["vram", 0]
    prompt["vram"] = node("WanVideoVRAMManagement", offload_percent=1.0)
    run = run_of(comfy, prompt)
    assert "the larger number counts" in run.log
    assert equals(run, plain)


def test_set_block_swap_needs_no_new_load(comfy, plain):
    prompt = text_to_latent(seed=21, model_link=["set", 0])
    prompt["set"] = node("WanVideoSetBlockSwap", model=["model", 0], block_swap_args=["swap", 0])
    prompt["swap"] = block_swap(blocks_to_swap=3)
    run_of(comfy, prompt)
    prompt["swap"] = block_swap(blocks_to_swap=1)
    run = run_of(comfy, prompt)
    assert "model" not in run.executed()
    assert equals(run, plain)


def test_the_plan_is_said_in_one_line(comfy):
    run = run_of(comfy, text_to_latent(seed=22))
    (line,) = [line for line in run.log.splitlines() if "blocks resident" in line]
    for part in ("40 tokens", "activations", "4 blocks resident", "0 streamed", "expected stall"):
        assert part in line
