"""Tiny files of the models beyond text to video."""

import re
from functools import partial

import pytest
import torch
from comfyui_wanvideo.tools.tiny import families, family_files, fill, specs, vae22, vision
from comfyui_wanvideo.tools.tiny.make import write
from comfyui_wanvideo.wanvideo.vae.load import load_vae
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.detect import describe_file, detect
from safetensors.torch import load_file

from ..wanvideo.weights.key_lists import TRANSFORMERS

SMALL = partial(specs.DiTSize, width=1536, feed_forward=8960, layers=30, text_width=4096)
LARGE = partial(specs.DiTSize, width=5120, feed_forward=13824, layers=40, text_width=4096)
FIVE = partial(specs.DiTSize, width=3072, feed_forward=14336, layers=30, text_width=4096, out_channels=48)
REAL_UNI3C = families.Uni3CSize(main_width=5120, width=1024, feed_forward=8192, layers=20)


def written(tmp_path, *names):
    return [load_file(path) for path in write(tmp_path, names)]


def of_comfyui(kind, size, **settings):
    """Names and shapes of a transformer of ComfyUI's."""
    import comfy.ldm.wan.model as models
    import comfy.ops

    model = getattr(models, kind)(
        dim=size.width,
        ffn_dim=size.feed_forward,
        num_heads=size.width // 128,
        num_layers=size.layers,
        text_dim=size.text_width,
        in_dim=size.in_channels,
        out_dim=size.out_channels,
        device="meta",
        operations=comfy.ops.disable_weight_init,
        **settings,
    )
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


# names and shapes, at the real sizes


def test_the_image_branch_has_comfyui_s_names_and_shapes(comfyui_path):
    size = LARGE(in_channels=36, has_image_branch=True)
    assert specs.dit(size) == of_comfyui("WanModel", size, model_type="i2v")


def test_first_and_last_frame_positions_have_comfyui_s_name_and_shape(comfyui_path):
    size = LARGE(in_channels=36, has_image_branch=True)
    expected = of_comfyui("WanModel", size, model_type="i2v", flf_pos_embed_token_number=514)
    assert {**specs.dit(size), **families.first_and_last_frame(size)} == expected


@pytest.mark.parametrize(("make", "channels"), [(LARGE, 52), (FIVE, 148)])
def test_the_reference_embedding_has_comfyui_s_names_and_shapes(comfyui_path, make, channels):
    size = make(in_channels=channels)
    expected = of_comfyui("WanModel", size, in_dim_ref_conv=size.out_channels)
    assert {**specs.dit(size), **families.reference(size)} == expected


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (SMALL(in_channels=32, has_image_branch=True), {"model_type": "camera"}),
        (LARGE(in_channels=36), {"model_type": "camera_2.2"}),
        # ComfyUI folds the rays in cells of 8 x 8, the 5B model in cells of 16 x 16: four times the channels.
        (FIVE(in_channels=100), {"model_type": "camera_2.2", "in_dim_control_adapter": 4 * 24}),
    ],
)
def test_the_camera_adapter_has_comfyui_s_names_and_shapes(comfyui_path, size, settings):
    expected = of_comfyui("CameraWanModel", size, **settings)
    assert {**specs.dit(size), **families.camera(size)} == expected


@pytest.mark.parametrize(("size", "layers"), [(SMALL(), 15), (LARGE(), 8)])
def test_vace_has_comfyui_s_names_and_shapes(comfyui_path, size, layers):
    expected = of_comfyui("VaceWanModel", size, vace_layers=layers, vace_in_dim=96)
    assert {**specs.dit(size), **families.vace(size, layers)} == expected


def test_uni3c_has_comfyui_s_names_and_shapes(comfyui_path):
    import comfy.ops
    from comfy.ldm.wan.uni3c import WanUni3CControlnet

    model = WanUni3CControlnet(device="meta", operations=comfy.ops.disable_weight_init)
    expected = {
        key.replace(".q.", ".to_q.").replace(".k.", ".to_k.").replace(".v.", ".to_v."): tuple(tensor.shape)
        for key, tensor in model.state_dict().items()
    }
    expected = {key.replace(".o.", ".to_out.0."): shape for key, shape in expected.items()}
    assert families.uni3c(REAL_UNI3C) == expected


@pytest.mark.parametrize(("encoder", "decoder"), [(160, 256), (16, 24)])
def test_the_wan_2_2_vae_has_comfyui_s_names_and_shapes(comfyui_path, encoder, decoder):
    from comfy.ldm.wan.vae2_2 import WanVAE

    with torch.device("meta"):
        model = WanVAE(dim=encoder, dec_dim=decoder, z_dim=48, temperal_downsample=[False, True, True])
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert vae22.wan22_vae(vae22.VAE22Size(encoder_base=encoder, decoder_base=decoder)) == expected


def test_the_image_encoder_has_the_names_and_shapes_of_transformers():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    size = vision.VisionSize(layers=32, feed_forward=5120)
    config = CLIPVisionConfig(
        hidden_size=size.width,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=16,
        patch_size=size.patch,
        projection_dim=size.out,
    )
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(config)
        ours = {key: torch.empty(shape) for key, shape in vision.vision(size).items()}
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert {key: tensor.shape for key, tensor in vision.to_hf(ours).items()} == expected


def test_a_control_lora_has_factors_for_what_they_widen_and_change():
    shapes = families.control_lora(specs.DiTSize(), rank=4)
    assert shapes["diffusion_model.patch_embedding.lora_A.weight"] == (4, 32, 1, 2, 2)
    assert shapes["diffusion_model.patch_embedding.lora_B.weight"] == (256, 4, 1, 1, 1)
    assert shapes["diffusion_model.blocks.3.ffn.2.lora_A.weight"] == (4, 512)
    assert shapes["diffusion_model.blocks.3.ffn.2.lora_B.weight"] == (256, 4)
    assert len(shapes) == 2 * (1 + 4 * 10)


# values


@pytest.mark.parametrize(
    "shapes",
    [
        families.vace(specs.DiTSize(), 2),
        families.uni3c(families.Uni3CSize()),
        families.control_lora(specs.DiTSize()),
        vision.vision(vision.VisionSize(layers=1)),
    ],
    ids=["vace", "uni3c", "control lora", "clip"],
)
def test_no_weight_is_zero(shapes):
    for key, tensor in fill.tensors(shapes, file="any", seed=0).items():
        assert tensor.abs().max() > 0, key


def test_norms_that_have_numbers_for_names_are_about_one():
    size = specs.DiTSize(has_image_branch=True)
    for key in ("img_emb.proj.0.weight", "controlnet_mask_embedding.mask_proj.1.weight"):
        tensor = fill.tensor(key, (size.image_width,), file="any", seed=0)
        assert tensor.mean() == pytest.approx(1, abs=0.01)
        assert tensor.std() == pytest.approx(0.05, abs=0.01)


def test_the_two_experts_of_a_model_differ(tmp_path):
    high, low = written(tmp_path, "tiny_wan22_i2v_high_fp32", "tiny_wan22_i2v_low_fp32")
    assert high.keys() == low.keys()
    assert not any(torch.equal(high[key], low[key]) for key in high)


def test_the_full_vace_file_is_the_text_to_video_model_with_the_module(tmp_path):
    names = "tiny_wan21_t2v_fp32", "tiny_vace_module_fp32", "tiny_wan21_vace_full_fp32"
    base, module, full = written(tmp_path, *names)
    assert full.keys() == {*base, *module}
    assert all(torch.equal(full[key], {**base, **module}[key]) for key in full)


def test_the_merged_control_lora_is_the_text_to_video_model_and_the_lora(tmp_path):
    names = (
        "tiny_wan21_t2v_fp32",
        "tiny_wan21_control_lora_fp32",
        "tiny_wan21_control_lora_merged_fp32",
    )
    base, lora, merged = written(tmp_path, *names)
    query = "blocks.2.self_attn.q"
    down, up = (lora[f"diffusion_model.{query}.lora_{part}.weight"] for part in "AB")
    torch.testing.assert_close(merged[f"{query}.weight"], base[f"{query}.weight"] + up @ down)
    down, up = (lora[f"diffusion_model.patch_embedding.lora_{part}.weight"] for part in "AB")
    change = torch.einsum("orxyz,rithw->oithw", up, down)
    patches = merged["patch_embedding.weight"]
    torch.testing.assert_close(patches[:, :16], base["patch_embedding.weight"] + change[:, :16])
    torch.testing.assert_close(patches[:, 16:], change[:, 16:])
    assert lora["diffusion_model.patch_embedding.reshape_weight"].tolist() == list(patches.shape)


def test_both_image_encoders_hold_the_same_values(tmp_path):
    wan, hf = written(tmp_path, "tiny_open-clip-xlm-roberta_visual_fp32", "tiny_clip_vision_h_fp16")
    for key, tensor in vision.to_hf(wan).items():
        torch.testing.assert_close(hf[key].float(), tensor, atol=1e-5, rtol=1e-3)


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    (first,) = write(tmp_path / "a", ["tiny_uni3c_controlnet_fp32"])
    (second,) = write(tmp_path / "b", ["tiny_uni3c_controlnet_fp32"])
    assert first.read_bytes() == second.read_bytes()


# the files are what they are called


KINDS = {
    "clip_vision": "CLIP image encoder",
    "vae": "Wan 2.2 VAE",
    "loras": "LoRA",
    "controlnet": "Uni3C controlnet",
}
OUTSIDE = [
    (group, folder, name)
    for group, makers in family_files.MAKERS.items()
    for folder, name in makers
    if folder in KINDS
]


@pytest.mark.parametrize(("group", "folder", "name"), OUTSIDE)
def test_a_file_is_of_the_kind_of_its_folder(tmp_path, group, folder, name):
    (path,) = write(tmp_path, [name])
    assert describe_file(Checkpoint.open(path)) == KINDS[folder]


# A tiny transformer -> the real file it stands for
REAL = {
    "tiny_wan21_i2v_480": "i2v 14B",
    "tiny_wan21_flf2v": "flf2v 14B",
    "tiny_wan22_t2v_high": "t2v 14B",
    "tiny_wan22_t2v_low": "t2v 14B",
    "tiny_wan22_i2v_high": "i2v A14B",
    "tiny_wan22_i2v_low": "i2v A14B",
    "tiny_wan22_ti2v_5b": "ti2v 5B",
    "tiny_wan21_fun_inp": "i2v 14B",
    "tiny_wan22_fun_inp_high": "i2v A14B",
    "tiny_wan22_fun_inp_low": "i2v A14B",
    "tiny_wan22_fun_inp_5b": "fun inp 5B",
    "tiny_wan21_fun_control": "fun control 14B",
    "tiny_wan21_fun_control_ref": "fun control v1.1 14B",
    "tiny_wan22_fun_control": "fun control A14B",
    "tiny_wan22_fun_control_5b": "fun control 5B",
    "tiny_wan21_fun_camera": "fun camera 14B",
    "tiny_wan22_fun_camera": "fun camera A14B",
    "tiny_wan22_fun_camera_5b": "fun camera 5B",
    "tiny_wan21_control_lora_merged": "control lora 1.3B, merged",
    "tiny_wan21_phantom": "t2v 14B",
    "tiny_wan21_vace_full": "vace 14B",
}


@pytest.mark.parametrize(("tiny", "real"), REAL.items())
def test_a_tiny_transformer_has_the_keys_and_capabilities_of_the_real_one(tmp_path, tiny, real):
    (path,) = write(tmp_path, [f"{tiny}_fp32"])
    keys, capabilities, _ = TRANSFORMERS[real]
    file = Checkpoint.open(path)
    assert detect(file).capabilities == capabilities
    assert {without_numbers(key) for key in file} == {without_numbers(key) for key in keys()}


def test_every_tiny_transformer_stands_for_a_real_one():
    names = {
        name for makers in family_files.MAKERS.values() for folder, name in makers if folder not in KINDS
    }
    assert names - {"tiny_vace_module_fp32.safetensors"} == {f"{tiny}_fp32.safetensors" for tiny in REAL}


def test_the_tiny_vace_module_is_one(tmp_path):
    (path,) = write(tmp_path, ["tiny_vace_module_fp32"])
    assert describe_file(Checkpoint.open(path)) == "VACE module"


def without_numbers(key):
    """The same for all blocks: the tiny transformer has fewer."""
    return re.sub(r"blocks\.\d+\.", "blocks.", key)


def test_the_wan_2_2_vae_decodes_noise_to_a_picture_of_fair_contrast(tmp_path):
    (path,) = write(tmp_path, ["tiny_wan22_vae_fp32"])
    vae = load_vae(Checkpoint.open(path), dtype=torch.float32)
    noise = torch.randn(1, 48, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pixels = vae.decode(noise, device="cpu")
    assert pixels.shape == (1, 3, 5, 64, 64)
    assert pixels.isfinite().all()
    assert pixels.std() > 0.25
    assert (pixels.abs() > 1).float().mean() < 0.2
