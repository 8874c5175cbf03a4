"""Nodes need ComfyUI; without it these tests are skipped."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill, specs, spiece
from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def inference_mode():
    """As ComfyUI runs its nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture
def node_module(comfyui_path) -> Callable[[str], ModuleType]:
    """Imports a module of the node layer by its name below ``nodes``."""
    return lambda name: importlib.import_module(f"comfyui_wanvideo.nodes.{name}")


@pytest.fixture
def host(node_module):
    """The door to ComfyUI."""
    return node_module("host")


@pytest.fixture
def model_folder(comfyui_path, monkeypatch, tmp_path):
    """An empty ``models/vae``; returns its path."""
    import folder_paths

    folder = tmp_path / "vae"
    folder.mkdir()
    entry = ([str(folder)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae", entry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return folder


@pytest.fixture
def manager(comfyui_path, monkeypatch):
    """ComfyUI's memory manager with one imaginary GPU (the meta device) of 10 GB."""
    import comfy.model_management as management

    gpu = torch.device("meta")
    monkeypatch.setattr(management, "current_loaded_models", [])
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NORMAL_VRAM)
    monkeypatch.setattr(management, "get_all_torch_devices", lambda *_, **__: [gpu])

    def free(_device, torch_free_too=False):
        used = sum(entry.model_loaded_memory() for entry in management.current_loaded_models)
        room = 10e9 - used
        return (room, 0) if torch_free_too else room

    monkeypatch.setattr(management, "get_free_memory", free)
    return management


@pytest.fixture
def vae_file(model_folder):
    """A tiny random Wan 2.1 VAE in ``models/vae``; returns its path."""
    path = model_folder / "tiny_vae.safetensors"
    save_file(fill.tensors(specs.wan21_vae(specs.VAESize(base=8)), file="vae", seed=1), path)
    return path


@pytest.fixture
def text_encoder_file(comfyui_path, monkeypatch, tmp_path):
    """A tiny random UMT5 with tokenizer, alone in ``models/text_encoders``; returns its path."""
    import folder_paths

    folder = tmp_path / "text_encoders"
    folder.mkdir()
    entry = ([str(folder)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "text_encoders", entry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    size = specs.UMT5Size(width=32, attention_width=32, heads=2, feed_forward=64)
    weights = fill.tensors(specs.umt5(size), file="umt5", seed=1)
    path = folder / "tiny_umt5.safetensors"
    save_file({**weights, "spiece_model": spiece.as_tensor(spiece.train())}, path)
    return path


@pytest.fixture
def transformer_files(comfyui_path, monkeypatch, tmp_path):
    """A tiny random transformer, ``tiny.safetensors``, alone in ``models/diffusion_models``; the folder."""
    import folder_paths

    folder = tmp_path / "diffusion_models"
    folder.mkdir()
    entry = ([str(folder)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", entry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    size = specs.DiTSize(width=128, feed_forward=256, layers=4, text_width=32)
    save_file(fill.tensors(specs.dit(size), file="dit", seed=1), folder / "tiny.safetensors")
    return folder


@pytest.fixture
def load_model(node_module, transformer_files):
    """Runs the model loader on the tiny transformer; keyword arguments are its inputs."""

    def load(**inputs):
        values = {"base_precision": "fp32", "quantization": "disabled", "load_device": "offload_device"}
        return (
            node_module("model").WanVideoModelLoader.run("tiny.safetensors", **{**values, **inputs}).result[0]
        )

    return load
