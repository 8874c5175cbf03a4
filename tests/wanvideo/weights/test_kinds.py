"""Telling model files apart, and the sentence for a file in the wrong place."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.detect import describe_file, detect
from comfyui_wanvideo.wanvideo.weights.kinds import KINDS, UNKNOWN, kind_of, wrong_kind

from .key_lists import OTHER_FILES, TRANSFORMERS

VAE21 = ["encoder.conv1.weight", "decoder.middle.0.residual.0.gamma", "decoder.head.0.gamma", "conv2.weight"]
VAE22 = [*VAE21, "decoder.upsamples.0.upsamples.0.residual.2.weight"]
T5_BLOCK = "encoder.block.{}.layer.0.SelfAttention.{}.weight"
FILES = {
    "Wan 2.1 VAE": [VAE21, [f"model.{key}" for key in VAE21]],
    "Wan 2.2 VAE": [VAE22],
    "UMT5 text encoder": [
        ["token_embedding.weight", "blocks.0.attn.q.weight", "norm.weight"],
        ["shared.weight", T5_BLOCK.format(0, "q"), T5_BLOCK.format(0, "relative_attention_bias")],
        [T5_BLOCK.format(block, name) for block in (0, 1) for name in ("q", "relative_attention_bias")],
    ],
    "T5 text encoder of another model (not UMT5)": [
        [T5_BLOCK.format(0, "q"), T5_BLOCK.format(0, "relative_attention_bias"), T5_BLOCK.format(1, "q")]
    ],
    "CLIP image encoder": [
        ["visual.transformer.0.attn.to_qkv.weight", "log_scale"],
        ["vision_model.encoder.layers.0.self_attn.q_proj.weight"],
        ["cls_embedding", "transformer.0.attn.to_qkv.weight"],
        ["embeddings.class_embedding", "encoder.layers.0.self_attn.q_proj.weight"],
    ],
    "LoRA": [
        ["diffusion_model.blocks.0.self_attn.q.lora_A.weight"],
        ["lora_unet_blocks_0_self_attn_q.lora_down.weight", "lora_unet_blocks_0_self_attn_q.alpha"],
        ["transformer.blocks.0.attn1.to_q.lora_A.weight"],
        ["blocks.0.self_attn.q.lora_A.default.weight"],
        ["lycoris_blocks_0_self_attn_q.lokr_w1"],
        ["diffusion_model.blocks.0.norm3.diff"],
        ["patch_embedding.lora_A.weight", "blocks.0.self_attn.q.lora_A.weight"],
    ],
    "Uni3C controlnet": [["controlnet_patch_embedding.weight", "controlnet.blocks.0.self_attn.q.weight"]],
    "Wan controlnet": [
        ["control_encoder.0.0.weight", "controlnet_blocks.0.weight", "blocks.0.attn1.to_q.weight"]
    ],
    "MultiTalk or InfiniteTalk module": [
        ["audio_proj.proj1.weight", "blocks.0.audio_cross_attn.q_linear.weight"]
    ],
    "FantasyTalking module": [["proj_model.proj.weight", "blocks.0.cross_attn.processor.k_proj.weight"]],
    "FantasyPortrait module": [["mouth_proj_model.latents", "proj_model.norm.weight"]],
    "Stand-In adapter": [["blocks.0.self_attn.q_loras.down.weight"]],
    "Lynx module": [["blocks.0.self_attn.ref_adapter.to_k_ref.weight"]],
    "wav2vec2 audio encoder": [["wav2vec2.feature_extractor.conv_layers.0.conv.weight"]],
    "Stable Diffusion model": [["model.diffusion_model.input_blocks.0.0.weight"]],
    "Flux or HunyuanVideo transformer": [["double_blocks.0.img_attn.qkv.weight"]],
    "file of an unknown kind": [["some.weight", "other.weight"]],
}
CASES = [(name, keys) for name, files in FILES.items() for keys in files]


@pytest.mark.parametrize(("name", "keys"), CASES)
def test_a_file_is_described_by_its_keys(make_header, name, keys):
    assert describe_file(make_header(dict.fromkeys(keys, (2,)))) == name


@pytest.mark.parametrize(
    ("channels", "name"), [(16, "Wan 2.1 VAE"), (48, "Wan 2.2 VAE"), (4, "file of an unknown kind")]
)
def test_the_vae_of_diffusers_is_told_by_its_latent_channels(make_header, channels, name):
    shapes = {
        "decoder.mid_block.resnets.0.norm1.gamma": (384, 1, 1, 1),
        "post_quant_conv.weight": (channels, channels, 1, 1, 1),
    }
    assert describe_file(make_header(shapes)) == name


@pytest.mark.parametrize(
    ("channels", "name"),
    [(16, "tiny Wan autoencoder (TAEHV)"), (48, "tiny Wan autoencoder (TAEHV)"), (784, "FlashVSR decoder")],
)
def test_small_decoders_are_told_by_their_input_channels(make_header, channels, name):
    shapes = {"decoder.1.weight": (256, channels, 3, 3), "decoder.22.bias": (3,)}
    assert describe_file(make_header(shapes)) == name


def test_a_vace_module_is_no_transformer(shapes_of, make_header):
    assert describe_file(make_header(shapes_of["vace"]())) == "VACE module"


@pytest.mark.parametrize(("name", "keys"), [case for case in CASES if case[0] != UNKNOWN.name])
def test_a_wrong_file_is_refused_with_what_it_looks_like_and_who_loads_it(make_header, name, keys):
    with pytest.raises(ModelFileError) as caught:
        detect(make_header(dict.fromkeys(keys, (2,)), name="wrong.safetensors"))
    loader = next(kind.loader for kind in KINDS if kind.name == name)
    advice = f"load it with {loader}" if loader else "no node of this pack reads it"
    assert str(caught.value) == (
        f"wrong.safetensors: is not a Wan transformer: it looks like a {name}; {advice}"
    )


OTHERS = [pytest.param(*case, id=name) for name, case in OTHER_FILES.items()]


@pytest.mark.parametrize(("keys", "name", "_loader"), OTHERS)
def test_a_released_file_is_of_its_kind(make_header, keys, name, _loader):
    assert describe_file(make_header(keys())) == name


@pytest.mark.parametrize(("keys", "name", "loader"), OTHERS)
def test_a_released_file_that_is_no_transformer_is_refused_with_who_loads_it(make_header, keys, name, loader):
    with pytest.raises(ModelFileError) as caught:
        detect(make_header(keys()))
    advice = f"load it with {loader}" if loader else "no node of this pack reads it"
    assert str(caught.value).endswith(f"is not a Wan transformer: it looks like a {name}; {advice}")


@pytest.mark.parametrize("keys", [case[0] for case in TRANSFORMERS.values()], ids=TRANSFORMERS)
def test_a_released_transformer_is_of_that_kind(make_header, keys):
    assert kind_of(make_header(keys())).name == "Wan transformer"


def test_an_unknown_file_is_refused_with_its_first_keys(make_header):
    error = wrong_kind(make_header({"a.b": (1,), "c": (1,)}), "a Wan VAE")
    assert str(error) == "model.safetensors: is not a Wan VAE; its kind is unknown (it holds a.b, c, ...)"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_quantised_transformer_is_still_a_transformer(shapes_of, make_header, dtype):
    shapes = shapes_of["wan"]()
    assert kind_of(make_header(shapes, dtypes=dict.fromkeys(shapes, dtype))).name == "Wan transformer"
