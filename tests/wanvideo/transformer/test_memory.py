"""The estimate of activation memory against what is alive during a forward."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.benchmarks.measure import peak_bytes
from comfyui_wanvideo.wanvideo.transformer.memory import activation_bytes

from .conftest import CONFIG, Inputs, random_transformer, run_state


@pytest.mark.parametrize("ffn_dim", [256, 1024, 3072])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_is_at_most_a_quarter_above_the_peak_and_never_below(ffn_dim, dtype):
    config = replace(CONFIG, ffn_dim=ffn_dim, layers=3)
    model = random_transformer(config)
    for module in model.modules():
        if getattr(module, "parameter_dtype", "compute") == "compute":
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    latent = torch.randn(1, 16, 4, 48, 48)
    inputs = Inputs(latent, 500.0, torch.randn(7, CONFIG.text_width))
    state = run_state()

    def forward():
        return model(latent, [500.0], inputs.conditioning, state)

    with torch.inference_mode():
        forward()  # text and time are embedded once per run
    _, peak = peak_bytes(forward, [latent, inputs.text, *model.parameters()])
    estimate = activation_bytes(config, 4 * 24 * 24, dtype)
    assert peak <= estimate <= 1.25 * peak
