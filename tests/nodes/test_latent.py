"""Latents of this pack and of ComfyUI are the same."""

import pytest
import torch


@pytest.mark.parametrize("direction", ["comfy_to_wrapper", "wrapper_to_comfy"])
def test_a_latent_passes_unchanged(node_module, direction):
    samples = {"samples": torch.randn(1, 16, 3, 8, 8), "noise_mask": torch.ones(1)}
    node = node_module("latent").WanVideoLatentReScale
    assert node.execute(samples=samples, direction=direction)[0] is samples
