"""Tiny VACE models and what they are conditioned on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make
from comfyui_wanvideo.wanvideo import families
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning, FamilyInput
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.vace.inputs import VACE, VaceContext, VaceInput
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint

BASE, MODULE, FULL = "tiny_wan21_t2v_fp32", "tiny_vace_module_fp32", "tiny_wan21_vace_full_fp32"
I2V = "tiny_wan21_i2v_480_fp32"
TIMESTEP = 637.25
FRAMES, ROWS, COLUMNS = 3, 6, 10


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with the tiny transformers and the VACE module."""
    folder = tmp_path_factory.mktemp("vace")
    make.write(folder, (BASE, MODULE, FULL, I2V))
    return folder / "diffusion_models"


def load(path: Path, *extras: Path, dtype: torch.dtype = torch.float32) -> WanTransformer:
    """A model with all the families its files show."""
    files = [Checkpoint.open(extra) for extra in extras]
    loaded = load_transformer(
        Checkpoint.open(path), compute_dtype=dtype, extras=files, extend=families.extend
    )
    return loaded.transformer


@pytest.fixture(scope="session")
def model(tiny) -> WanTransformer:
    return load(tiny / f"{FULL}.safetensors")


@pytest.fixture(scope="session")
def plain(tiny) -> WanTransformer:
    """The same model without VACE."""
    return load(tiny / f"{BASE}.safetensors")


def setup_of(model: WanTransformer, **changes: Any) -> RunSetup:
    """A run of 3 latent frames of 6 x 10."""
    geometry = VideoGeometry(COLUMNS * 8, ROWS * 8, 4 * FRAMES - 3)
    return RunSetup(model.config, geometry, latent_space_for(16), **changes)


def context_of(seed: int = 0, references: int = 0, frames: int = FRAMES, **settings: Any) -> VaceContext:
    """A random context."""
    generator = torch.Generator().manual_seed(seed)

    def latent(count: int, channels: int = 16) -> torch.Tensor:
        return torch.randn(1, channels, count, ROWS, COLUMNS, generator=generator)

    return VaceContext(
        Timed(latent(frames)),
        Timed(latent(frames)),
        Timed((latent(frames, 64) > 0).float()),
        tuple(latent(1) for _ in range(references)),
        **settings,
    )


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a model: a noisy latent and a text.

    Args:
        latent: ``[B, C, T, H, W]``.
        text: ``[L, D]``.
    """

    latent: torch.Tensor
    text: torch.Tensor

    def conditioning(self, inputs: Mapping[str, FamilyInput]) -> Conditioning:
        frames, rows, columns = self.latent.shape[2:]
        geometry = VideoGeometry(columns * 8, rows * 8, 4 * frames - 3)
        return Conditioning(geometry, text=(self.text,), inputs=inputs)

    def __call__(self, model: WanTransformer, *contexts: VaceContext, run=None, **others) -> torch.Tensor:
        """One forward; contexts are prepared already, ``others`` are inputs by name."""
        inputs = {VACE: VaceInput(contexts), **others} if contexts else others
        with torch.inference_mode():
            return model(self.latent, [TIMESTEP], self.conditioning(inputs), run or run_state())


def run_state(**options) -> RunState:
    """A run with SDPA and the given options."""
    return RunState(RunOptions(attention=sdpa, **options))


def evaluation(leading: int = 0, batch: int = 1) -> Evaluation:
    """A random one, with leading frames."""
    generator = torch.Generator().manual_seed(9)
    latent = torch.randn(batch, 16, leading + FRAMES, ROWS, COLUMNS, generator=generator)
    return Evaluation(latent, torch.randn(11, 256, generator=generator))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 error."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())
