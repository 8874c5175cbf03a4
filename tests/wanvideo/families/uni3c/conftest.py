"""A small random controlnet, and the inputs of a forward that the transformer's tests use."""

from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.tools.tiny import families, fill
from comfyui_wanvideo.wanvideo.families.uni3c.inputs import Uni3CControlnet
from comfyui_wanvideo.wanvideo.families.uni3c.load import load_uni3c
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from safetensors.torch import save_file

from ...transformer.conftest import CONFIG, inputs

__all__ = ["inputs"]

LAYERS = CONFIG.layers - 1  # fewer than the model has, as in the real one


def tensors(**sizes) -> dict[str, torch.Tensor]:
    """A file of the sizes of the transformer's tests."""
    size = families.Uni3CSize(main_width=CONFIG.dim, layers=LAYERS, **sizes)
    return fill.tensors(families.uni3c(size), file="uni3c", seed=0)


@pytest.fixture(scope="session")
def file(tmp_path_factory) -> Path:
    """A file with random weights."""
    path = tmp_path_factory.mktemp("uni3c") / "uni3c.safetensors"
    save_file(tensors(), path)
    return path


@pytest.fixture(scope="session")
def controlnet(file) -> Uni3CControlnet:
    """The network of that file in float32."""
    network = load_uni3c(Checkpoint.open(file), compute_dtype=torch.float32)
    return Uni3CControlnet(network, file.name)


@pytest.fixture
def render() -> torch.Tensor:
    """A prepared render for the latent of the inputs."""
    return torch.randn(1, 16, 3, 6, 10, generator=torch.Generator().manual_seed(8))
