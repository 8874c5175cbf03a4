"""Which files are taken, and what is said of the others."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.vae import load_vae
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from safetensors.torch import save_file

OTHER_FILES = {
    "dit": (
        {"patch_embedding.weight": (8, 16, 1, 2, 2), "blocks.0.self_attn.q.weight": (8, 8)},
        "it looks like a Wan transformer; load it with WanVideo Model Loader",
    ),
    "lora": (
        {"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (4, 8)},
        "it looks like a LoRA; load it with WanVideo Lora Select",
    ),
    "t5": (
        {"token_embedding.weight": (8, 8), "blocks.0.attn.q.weight": (8, 8)},
        "it looks like a UMT5 text encoder; load it with WanVideo T5 Text Encoder Loader",
    ),
    "unknown": ({"some.weight": (2, 2)}, "its kind is unknown .it holds some.weight"),
}


def load(path, dtype=torch.float32):
    return load_vae(Checkpoint.open(path), dtype=dtype)


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, kind):
    shapes, message = OTHER_FILES[kind]
    path = tmp_path / f"{kind}.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, path)
    with pytest.raises(ModelFileError, match=f"{kind}.safetensors: is not a Wan VAE[:;] {message}"):
        load(path)


@pytest.mark.parametrize("missing", ["decoder.head.2.bias", "encoder.conv1.weight", "decoder.upsamples.0"])
def test_an_incomplete_file_is_refused_by_the_missing_key(tiny21, tmp_path, missing):
    weights = {key: value for key, value in tiny21.official_weights.items() if not key.startswith(missing)}
    path = tmp_path / "wan_vae.safetensors"
    save_file(weights, path)
    with pytest.raises(ModelFileError, match=f"wan_vae.safetensors: .*{missing}"):
        load(path)


def test_a_vae_with_other_latent_channels_is_refused(make_vae):
    other = make_vae("2.1", z_dim=12)
    with pytest.raises(ModelFileError, match=r"a VAE with 12 latent channels; expected 16 .* or 48"):
        load(other.official_file)


@pytest.mark.parametrize("prefix", ["model.", "first_stage_model.", "vae."])
def test_a_prefix_changes_nothing(tiny, tmp_path, prefix):
    path = tmp_path / "prefixed.safetensors"
    weights = {prefix + key: value for key, value in tiny.official_weights.items()}
    save_file(weights | {"model.diffusion_model.other.weight": torch.zeros(2)}, path)
    latent = tiny.latent(1)
    assert torch.equal(load(path).decode(latent, device="cpu"), tiny.load().decode(latent, device="cpu"))


def test_a_pth_file_gives_the_same(tiny21, tmp_path):
    path = tmp_path / "Wan2.1_VAE.pth"
    torch.save(dict(tiny21.official_weights), path)
    latent = tiny21.latent(1)
    assert torch.equal(load(path).decode(latent, device="cpu"), tiny21.load().decode(latent, device="cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_weight_has_the_asked_dtype(tiny, dtype):
    vae = tiny.load(dtype=dtype)
    assert {parameter.dtype for parameter in vae.module.parameters()} == {dtype}
    assert vae.dtype == dtype


def test_kind_and_strides_come_from_the_file(tiny):
    vae = tiny.load()
    assert vae.name == f"Wan {tiny.version} VAE"
    assert (vae.latent_channels, vae.latent_space.channels) == (tiny.latent_channels, tiny.latent_channels)
    assert (vae.temporal_stride, vae.spatial_stride) == (4, tiny.stride)


def test_verbose_logs_each_run_at_info(tiny21, caplog):
    with caplog.at_level("INFO"):
        tiny21.load().decode(tiny21.latent(1), device="cpu")
        assert caplog.text == ""
        tiny21.load(verbose=True).decode(tiny21.latent(1), device="cpu")
    assert "Wan 2.1 VAE: decoding (1, 16, 1, 4, 5) in one piece on cpu (torch.float32)" in caplog.text
