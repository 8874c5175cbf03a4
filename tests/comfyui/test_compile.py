"""torch.compile settings through the queue, on a server that finds no compiler."""

import torch

from .graphs import node, text_to_latent

LATENT = ["sampler", 0]


def test_a_compiler_that_is_not_there_is_said_once_and_the_run_goes_on(comfy):
    plain = comfy.run(text_to_latent(seed=31, steps=1), keep={"latent": LATENT})
    prompt = text_to_latent(seed=31, steps=1, loader={"compile_args": ["compile", 0]})
    prompt["compile"] = node(
        "WanVideoTorchCompileSettings",
        backend="inductor",
        fullgraph=False,
        mode="default",
        dynamic=False,
        dynamo_cache_size_limit=64,
        compile_transformer_blocks_only=True,
    )
    run = comfy.run(prompt, keep={"latent": LATENT})
    assert run.status == "success", run.message
    assert run.log.count("torch.compile is not used: there is no C++ compiler") == 1
    assert torch.equal(run.kept["latent"].tensors["samples"], plain.kept["latent"].tensors["samples"])
