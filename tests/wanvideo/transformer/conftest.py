"""Small random transformers, the same weights in the references, and inputs."""

from dataclasses import dataclass

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer

CONFIG = WanConfig(dim=256, ffn_dim=384, heads=2, layers=2, in_channels=16, out_channels=16, text_width=64)


def random_transformer(config: WanConfig = CONFIG, seed: int = 0) -> WanTransformer:
    """A transformer with weights of a scale at which every part matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("cpu"):
        model = WanTransformer(config)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("modulation"):
            value = noise * 0.3
        elif parameter.ndim > 1:
            value = noise / fan_in**0.5
        else:
            value = noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        parameter.data = value
    return model


@dataclass(frozen=True)
class Inputs:
    """One forward's inputs."""

    latent: torch.Tensor
    timestep: float
    text: torch.Tensor

    @property
    def conditioning(self) -> Conditioning:
        frames, height, width = self.latent.shape[2:]
        geometry = VideoGeometry(width * 8, height * 8, 4 * (frames - 1) + 1)
        return Conditioning(geometry, text=(self.text,))


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)
    return Inputs(
        latent=torch.randn(1, 16, 3, 6, 10, generator=generator),
        timestep=637.25,
        text=torch.randn(11, CONFIG.text_width, generator=generator),
    )


@pytest.fixture(scope="session")
def model() -> WanTransformer:
    return random_transformer()


def run_state(**options) -> RunState:
    """A run with SDPA and the given options."""
    return RunState(RunOptions(attention=sdpa, **options))


def forward(model: WanTransformer, inputs: Inputs, **options) -> torch.Tensor:
    """One forward without gradients."""
    with torch.inference_mode():
        return model(inputs.latent, [inputs.timestep], inputs.conditioning, run_state(**options))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 error."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())
