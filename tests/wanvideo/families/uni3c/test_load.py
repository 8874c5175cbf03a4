"""Uni3C files: sizes, names, formats, and what is refused."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.families.uni3c.load import is_uni3c, load_uni3c, read_config
from comfyui_wanvideo.wanvideo.families.uni3c.network import Uni3CConfig
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.conversion import Conversion
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from safetensors.torch import save_file

from ...transformer.conftest import CONFIG
from .conftest import LAYERS, tensors


@pytest.fixture
def saved(tmp_path):
    def save(values):
        save_file(values, tmp_path / "file.safetensors")
        return Checkpoint.open(tmp_path / "file.safetensors")

    return save


def test_sizes_are_read_from_the_shapes(file):
    assert read_config(Checkpoint.open(file)) == Uni3CConfig(CONFIG.dim, 128, 256, LAYERS)


def test_keys_below_a_prefix_are_the_same_network(saved, controlnet):
    """In the authors' file the blocks are below it."""
    moved = {
        f"controlnet.{key}" if key.startswith(("controlnet_blocks", "proj_")) else key: value
        for key, value in tensors().items()
    }
    network = load_uni3c(saved(moved), compute_dtype=torch.float32)
    expected = controlnet.network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_precision_is_that_of_products_and_not_of_norms(file):
    network = load_uni3c(Checkpoint.open(file), compute_dtype=torch.bfloat16)
    dtypes = {name: value.dtype for name, value in network.named_parameters()}
    assert network.compute_dtype == torch.bfloat16
    assert dtypes["controlnet_blocks.0.self_attn.q.weight"] == torch.bfloat16
    for name in ("controlnet_patch_embedding.weight", "controlnet_blocks.0.norm1.norm.weight"):
        assert dtypes[name] == torch.float32


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_the_matrices_of_the_blocks_are_converted_and_no_others(file, dtype):
    network = load_uni3c(Checkpoint.open(file), compute_dtype=torch.bfloat16, conversion=Conversion(dtype))
    converted = {
        name
        for name, layer in network.named_modules()
        if isinstance(layer, WanLinear) and layer.weight.dtype == dtype
    }
    linears = {name for name, layer in network.named_modules() if isinstance(layer, WanLinear)}
    assert converted == {name for name in linears if name.startswith("controlnet_blocks.")}


def test_a_file_of_8_bit_stays_as_it_is(saved):
    stored = {
        key: value.to(torch.float8_e5m2) if key.endswith("to_q.weight") else value
        for key, value in tensors().items()
    }
    network = load_uni3c(
        saved(stored), compute_dtype=torch.bfloat16, conversion=Conversion(torch.float8_e4m3fn)
    )
    q, k = (network.get_parameter(f"controlnet_blocks.0.self_attn.{name}.weight") for name in "qk")
    assert q.dtype == torch.float8_e5m2
    assert k.dtype == torch.float8_e4m3fn


def test_another_kind_of_file_is_refused_by_what_it_is(saved):
    other = saved(
        {"control_encoder.0.0.weight": torch.zeros(1), "controlnet_blocks.0.weight": torch.zeros(1)}
    )
    assert not is_uni3c(other)
    with pytest.raises(ModelFileError, match="not a Uni3C controlnet: it looks like a Wan controlnet"):
        load_uni3c(other, compute_dtype=torch.float32)


@pytest.mark.parametrize(
    "key", ["proj_in.bias", "controlnet_blocks.0.norm2.linear.weight", "proj_out.0.weight"]
)
def test_a_missing_weight_is_named(saved, key):
    values = tensors()
    del values[key]
    with pytest.raises(ModelFileError, match=key):
        load_uni3c(saved(values), compute_dtype=torch.float32)


def test_other_channels_are_refused_with_both_numbers(saved):
    with pytest.raises(ModelFileError, match=r"of 40 channels.* expected 36"):
        read_config(saved(tensors(in_channels=40)))


def test_heads_of_another_width_are_refused(saved):
    with pytest.raises(ModelFileError, match=r"width 96; expected .* a multiple of 64"):
        read_config(saved(tensors(width=96)))
