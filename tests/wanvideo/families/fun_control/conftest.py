"""Tiny Fun models from files, the same weights in ComfyUI, and what they are conditioned on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make
from comfyui_wanvideo.wanvideo import families
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.clip_input import CLIP, ClipInput
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning, FamilyInput
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint

from ...transformer.twins import comfy_twin

FUN_NAMES = (
    "wan21_fun_control",
    "wan21_fun_control_ref",
    "wan22_fun_control",
    "wan22_fun_control_5b",
    "wan21_fun_camera",
    "wan22_fun_camera",
    "wan22_fun_camera_5b",
    "wan21_control_lora_merged",
    "wan21_t2v",
)
TIMESTEP = 637.25
FRAMES, ROWS, COLUMNS = 3, 6, 10
Load = Callable[..., WanTransformer]


@pytest.fixture(scope="session")
def fun_files(tmp_path_factory) -> Path:
    """A folder with the tiny transformers."""
    folder = tmp_path_factory.mktemp("fun")
    make.write(folder, [f"tiny_{name}_fp32.safetensors" for name in FUN_NAMES])
    return folder / "diffusion_models"


@pytest.fixture(scope="session")
def load(fun_files) -> Load:
    """Loads one of FUN_NAMES with the families its file shows."""
    loaded: dict[tuple[str, torch.dtype], WanTransformer] = {}

    def model(name: str, dtype: torch.dtype = torch.float32) -> WanTransformer:
        if (name, dtype) not in loaded:
            checkpoint = Checkpoint.open(fun_files / f"tiny_{name}_fp32.safetensors")
            found = load_transformer(checkpoint, compute_dtype=dtype, extend=families.extend)
            loaded[name, dtype] = found.transformer
        return loaded[name, dtype]

    return model


@pytest.fixture
def comfy_extras(comfyui_path, monkeypatch) -> Callable[[str], ModuleType]:
    """Imports a module of ComfyUI's extra nodes; of its top-level ``nodes`` they only read a number."""
    core = ModuleType("nodes")
    monkeypatch.setattr(core, "MAX_RESOLUTION", 16384, raising=False)
    monkeypatch.setitem(sys.modules, "nodes", core)
    return lambda name: importlib.import_module(f"comfy_extras.{name}")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CLIP_ROWS = noise(1, 257, 1280, seed=2)


def with_clip(model: WanTransformer, inputs: Mapping[str, FamilyInput]) -> dict[str, FamilyInput]:
    """With the CLIP rows of a picture for models with that branch: ComfyUI's need them."""
    return {**inputs, **({CLIP: ClipInput(rows=CLIP_ROWS)} if model.config.has_image_branch else {})}


def setup_of(model: WanTransformer, **changes: Any) -> RunSetup:
    """A run of 3 latent frames of 6 x 10."""
    channels = model.config.out_channels
    stride = 16 if channels == 48 else 8
    geometry = VideoGeometry(COLUMNS * stride, ROWS * stride, 4 * FRAMES - 3, stride)
    return RunSetup(model.config, geometry, latent_space_for(channels), **changes)


TEXT = noise(11, 256, seed=3)
PADDED_TEXT = torch.nn.functional.pad(TEXT, (0, 0, 0, 512 - len(TEXT)))[None]


def video_latent(model: WanTransformer, seed: int = 4, frames: int = FRAMES) -> torch.Tensor:
    return noise(1, model.config.out_channels, frames, ROWS, COLUMNS, seed=seed)


def prepared(model: WanTransformer, inputs: Mapping[str, FamilyInput]) -> dict[str, FamilyInput]:
    setup = setup_of(model)
    return {name: value.prepared(setup) for name, value in inputs.items()}


def run_state(**options) -> RunState:
    return RunState(RunOptions(attention=sdpa, **options))


def forward(
    model: WanTransformer,
    inputs: Mapping[str, FamilyInput],
    *,
    timesteps: Sequence[float] = (TIMESTEP,),
    latent: torch.Tensor | None = None,
    run: RunState | None = None,
    **options,
) -> torch.Tensor:
    """One forward without gradients; inputs are prepared here, CLIP rows added."""
    given = prepared(model, with_clip(model, inputs))
    conditioning = Conditioning(setup_of(model).geometry, text=(TEXT,), inputs=given)
    with torch.inference_mode():
        latent = video_latent(model) if latent is None else latent
        return model(latent, timesteps, conditioning, run or run_state(**options))


def comfy_twin_of(model: WanTransformer, dtype: torch.dtype = torch.float32) -> Any:
    """ComfyUI's transformer of the same weights."""
    from comfy.ldm.wan.model import CameraWanModel

    if hasattr(model, "control_adapter"):
        kind = "camera" if model.config.has_image_branch else "camera_2.2"
        return comfy_twin(model, CameraWanModel, dtype=dtype, model_type=kind)
    channels = model.config.out_channels if hasattr(model, "ref_conv") else None
    return comfy_twin(model, dtype=dtype, in_dim_ref_conv=channels)


def theirs(model: WanTransformer, latent: torch.Tensor, dtype: torch.dtype = torch.float32, **conditions):
    """ComfyUI's forward of a latent with its channels joined; tensors are given in ``dtype``."""
    if model.config.has_image_branch:
        conditions["clip_fea"] = CLIP_ROWS
    inputs = {name: value.to(dtype) for name, value in conditions.items()}
    with torch.inference_mode():
        return comfy_twin_of(model, dtype)(
            latent.to(dtype), torch.tensor([TIMESTEP]), context=PADDED_TEXT.to(dtype), **inputs
        )


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 error."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())
