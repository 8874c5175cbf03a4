"""The widened patch embedding, against ComfyUI's reading of the shape in a LoRA file."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.control_lora.patch_embedding import expanded_patch_embedding
from comfyui_wanvideo.wanvideo.transformer.patches import PatchEmbedding
from safetensors.torch import load_file

WEIGHT, BIAS = torch.randn(256, 16, 1, 2, 2), torch.randn(256)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_those_comfyui_makes_of_the_shape_in_the_file(comfyui_path, dtype):
    import comfy.lora

    weight, bias = expanded_patch_embedding(WEIGHT.to(dtype), BIAS.to(dtype), 32)
    assert torch.equal(weight, comfy.lora.pad_tensor_to_shape(WEIGHT.to(dtype), [256, 32, 1, 2, 2]))
    assert torch.equal(bias, BIAS.to(dtype))


def test_with_the_lora_added_it_is_the_one_comfyui_makes(comfyui_path, tmp_path):
    """The whole of what ComfyUI does to the patch embedding with the LoRA file, strength 0.7."""
    import comfy.lora

    path = make.write(tmp_path, ["tiny_wan21_control_lora_fp32.safetensors"])[0]
    factors, key = load_file(path), "diffusion_model.patch_embedding"
    loaded = comfy.lora.load_lora(factors, {key: f"{key}.weight"})
    patches = [(0.7, loaded[f"{key}.weight"], 1.0, None, None)]
    expected = comfy.lora.calculate_weight(patches, WEIGHT.clone(), f"{key}.weight")
    down, up = factors[f"{key}.lora_A.weight"], factors[f"{key}.lora_B.weight"]
    weight, _ = expanded_patch_embedding(WEIGHT, BIAS, down.shape[1])
    found = weight + 0.7 * (up.flatten(1) @ down.flatten(1)).view(weight.shape)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_it_ignores_the_new_channels():
    weight, bias = expanded_patch_embedding(WEIGHT, BIAS, 32)
    narrow, wide = PatchEmbedding(16, 256), PatchEmbedding(32, 256)
    narrow.weight.data, narrow.bias.data = WEIGHT, BIAS
    wide.weight.data, wide.bias.data = weight, bias
    latent = torch.randn(1, 32, 2, 4, 4)
    torch.testing.assert_close(wide(latent), narrow(latent[:, :16]), atol=1e-5, rtol=1e-5)


def test_the_originals_are_left_alone():
    before = WEIGHT.clone(), BIAS.clone()
    weight, bias = expanded_patch_embedding(WEIGHT, BIAS, 32)
    weight.zero_()
    bias.zero_()
    assert torch.equal(WEIGHT, before[0])
    assert torch.equal(BIAS, before[1])


def test_fewer_channels_are_refused_with_both_numbers():
    with pytest.raises(InputError, match=r"^lora: .* made for 32 input channels, the model has 36"):
        expanded_patch_embedding(torch.zeros(8, 36, 1, 2, 2), torch.zeros(8), 32)
