"""Tiny image-to-video models from files, and what they are conditioned on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make
from comfyui_wanvideo.wanvideo import families
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.clip_input import CLIP, ClipInput
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning, FamilyInput
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.image import IMAGE, ImageInput
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint

I2V, FLF, I2V_22, TI2V, INP_5B = (
    f"tiny_{name}_fp32"
    for name in ("wan21_i2v_480", "wan21_flf2v", "wan22_i2v_high", "wan22_ti2v_5b", "wan22_fun_inp_5b")
)
CAMERA_22, TEXT_ONLY = "tiny_wan22_fun_camera_fp32", "tiny_wan21_t2v_fp32"
TIMESTEP = 637.25
FRAMES, ROWS, COLUMNS = 3, 6, 10
PICTURE_TOKENS = 257


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with the tiny transformers."""
    folder = tmp_path_factory.mktemp("image_to_video")
    make.write(folder, (I2V, FLF, I2V_22, TI2V, INP_5B, CAMERA_22, TEXT_ONLY))
    return folder / "diffusion_models"


@pytest.fixture(scope="session")
def load(tiny):
    """Loads one of them with all the families its file shows."""
    loaded: dict[tuple[str, torch.dtype], WanTransformer] = {}

    def model(name: str, dtype: torch.dtype = torch.float32) -> WanTransformer:
        if (name, dtype) not in loaded:
            checkpoint = Checkpoint.open(tiny / f"{name}.safetensors")
            loaded[name, dtype] = load_transformer(
                checkpoint, compute_dtype=dtype, extend=families.extend
            ).transformer
        return loaded[name, dtype]

    return model


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def setup_of(model: WanTransformer, **sizes: Any) -> RunSetup:
    """A run of 3 latent frames of 6 x 10."""
    channels = model.config.out_channels
    stride = 16 if channels == 48 else 8
    geometry = VideoGeometry(COLUMNS * stride, ROWS * stride, 4 * FRAMES - 3, stride)
    return RunSetup(model.config, geometry, latent_space_for(channels), **sizes)


def start_image(channels: int = 16, known: int = 1, **more) -> ImageInput:
    """An image input whose first latent frames are known."""
    mask = torch.zeros(1, 4, FRAMES, ROWS, COLUMNS)
    mask[:, :, :known] = 1
    return ImageInput(Timed(noise(1, channels, FRAMES, ROWS, COLUMNS, seed=1)), Timed(mask), **more)


def clip_input(pictures: int = 1, *, batch: int = 1, seed: int = 2) -> ClipInput:
    return ClipInput(rows=noise(batch, pictures * PICTURE_TOKENS, 1280, seed=seed))


TEXT = noise(11, 256, seed=3)
LATENT = noise(1, 16, FRAMES, ROWS, COLUMNS, seed=4)
WIDE_LATENT = noise(1, 48, FRAMES, ROWS, COLUMNS, seed=4)


def conditioning(model: WanTransformer, inputs: Mapping[str, FamilyInput]) -> Conditioning:
    """With prepared inputs."""
    setup = setup_of(model)
    prepared = {name: value.prepared(setup) for name, value in inputs.items()}
    return Conditioning(setup.geometry, text=(TEXT,), inputs=prepared)


def run_state(**options) -> RunState:
    return RunState(RunOptions(attention=sdpa, **options))


def forward(model: WanTransformer, inputs: Mapping[str, FamilyInput], **options) -> torch.Tensor:
    """One forward without gradients, with per-frame timesteps where an input asks for them."""
    latent = WIDE_LATENT if model.config.out_channels == 48 else LATENT
    given = conditioning(model, inputs)
    with torch.inference_mode():
        return model(latent, given.frame_timesteps(TIMESTEP), given, run_state(**options))


def i2v_inputs(pictures: int = 1) -> dict[str, Any]:
    return {IMAGE: start_image(), CLIP: clip_input(pictures)}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 error."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())
