"""Tiny VAEs with random weights, as files in the layouts that are around."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui_wanvideo.wanvideo.vae import VideoVAE, load_vae
from comfyui_wanvideo.wanvideo.vae.layouts import official_name
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from safetensors.torch import save_file
from torch import Tensor, nn

WIDTH = 8


@dataclass(frozen=True)
class TinyVaeFile:
    """A Wan VAE of base width 8 in both layouts, and diffusers' network with the same weights."""

    version: str
    twin: nn.Module
    diffusers_file: Path
    official_file: Path
    official_weights: Mapping[str, Tensor]

    @property
    def latent_channels(self) -> int:
        return 16 if self.version == "2.1" else 48

    @property
    def stride(self) -> int:
        return 8 if self.version == "2.1" else 16

    def load(self, **options) -> VideoVAE:
        return load_vae(Checkpoint.open(self.official_file), **{"dtype": torch.float32, **options})

    def latent(self, latent_frames: int, rows: int = 4, columns: int = 5, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self.latent_channels, latent_frames, rows, columns, generator=generator)

    def pixels(self, frames: int, rows: int = 4, columns: int = 5) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        size = (rows * self.stride, columns * self.stride)
        return torch.rand(1, 3, frames, *size, generator=generator) * 2 - 1


def diffusers_vae(version: str, **widths: int) -> nn.Module:
    """AutoencoderKLWan with random weights whose activations keep their size."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    options: dict[str, Any] = {"base_dim": WIDTH, **widths}
    if version == "2.2":
        options |= {
            "z_dim": 48,
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "scale_factor_spatial": 16,
        }
    torch.manual_seed(0)
    network = AutoencoderKLWan(**options).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            parameter.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.1)
        else:
            parameter.normal_(0, parameter[0].numel() ** -0.5)
    network.decoder.conv_out.weight.mul_(0.1)  # pixels within [-1, 1], where diffusers clamps
    return network


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """These tensors are small: waiting for a second thread costs more than it computes (27 s, not 260 s)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_vae(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TinyVaeFile]:
    """Builds a VAE of a version with other widths."""

    def make(version: str, **widths: int) -> TinyVaeFile:
        twin = diffusers_vae(version, **widths)
        weights = {key: value.clone() for key, value in twin.state_dict().items()}
        has_levels = version == "2.2"
        official = {official_name(key, has_levels=has_levels): value for key, value in weights.items()}
        folder = tmp_path_factory.mktemp("vae")
        save_file(weights, folder / "diffusion_pytorch_model.safetensors")
        save_file(official, folder / "wan_vae.safetensors")
        return TinyVaeFile(
            version,
            twin,
            folder / "diffusion_pytorch_model.safetensors",
            folder / "wan_vae.safetensors",
            official,
        )

    return make


@pytest.fixture(scope="session", params=["2.1", "2.2"])
def tiny(request: pytest.FixtureRequest, make_vae: Callable[..., TinyVaeFile]) -> TinyVaeFile:
    """A tiny VAE of either version."""
    return make_vae(request.param)


@pytest.fixture(scope="session")
def tiny21(make_vae: Callable[..., TinyVaeFile]) -> TinyVaeFile:
    """A tiny Wan 2.1 VAE."""
    return make_vae("2.1")


@pytest.fixture(scope="session")
def error() -> Callable[[Tensor, Tensor], float]:
    """Largest deviation relative to the reference's root mean square."""

    def relative(found: Tensor, reference: Tensor) -> float:
        assert found.shape == reference.shape
        reference = reference.float()
        return float((found.float() - reference).abs().max() / reference.square().mean().sqrt())

    return relative


@pytest.fixture(scope="session")
def l2_error() -> Callable[[Tensor, Tensor], float]:
    """Relative L2 difference."""

    def relative(found: Tensor, reference: Tensor) -> float:
        assert found.shape == reference.shape
        return float((found.float() - reference.float()).norm() / reference.float().norm())

    return relative
