"""Parity of one forward with independent implementations, and what must not change it."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.rope import RopeOptions

from .conftest import CONFIG, forward, random_transformer, relative_error, run_state
from .twins import comfy_twin, diffusers_twin

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2e-2


def padded_text(inputs):
    return torch.nn.functional.pad(inputs.text, (0, 0, 0, CONFIG.text_length - len(inputs.text)))[None]


@torch.inference_mode()
def test_forward_equals_diffusers_in_fp32(model, inputs):
    twin = diffusers_twin(model)
    expected = twin(inputs.latent, torch.tensor([inputs.timestep]), padded_text(inputs)).sample
    assert relative_error(forward(model, inputs), expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_forward_equals_comfyui_in_fp32(model, inputs, comfyui_path):
    twin = comfy_twin(model)
    expected = twin(inputs.latent, torch.tensor([inputs.timestep]), context=padded_text(inputs))
    assert relative_error(forward(model, inputs), expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_bf16_forward_is_as_close_to_fp32_as_diffusers_own(model, inputs):
    expected = forward(model, inputs)
    twin = diffusers_twin(model).type(torch.bfloat16)
    theirs = twin(
        inputs.latent.bfloat16(), torch.tensor([inputs.timestep]), padded_text(inputs).bfloat16()
    ).sample
    low = random_transformer()
    for module in low.modules():
        if getattr(module, "parameter_dtype", "compute") == "compute":
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
    ours = relative_error(forward(low, inputs), expected)
    assert ours <= BF16_TOLERANCE
    assert ours <= 1.1 * relative_error(theirs, expected)


@pytest.mark.parametrize("function", ["default", "comfy_chunked"])
@pytest.mark.parametrize("size", [(3, 6, 10), (1, 2, 2), (3, 6, 6), (5, 10, 6)])
def test_rope_functions_agree_at_odd_token_counts(model, inputs, function, size):
    generator = torch.Generator().manual_seed(2)
    other = type(inputs)(torch.randn(1, 16, *size, generator=generator), inputs.timestep, inputs.text)
    whole = forward(model, other)
    assert relative_error(forward(model, other, rope=RopeOptions(function=function)), whole) <= 2e-6


def test_rms_norm_functions_agree(model, inputs):
    assert relative_error(forward(model, inputs, rms_norm="pytorch"), forward(model, inputs)) <= 1e-6


def test_padding_rows_of_the_text_are_attended(model, inputs):
    longer = type(inputs)(inputs.latent, inputs.timestep, torch.nn.functional.pad(inputs.text, (0, 0, 0, 5)))
    assert torch.equal(forward(model, inputs), forward(model, longer))


def test_a_batch_equals_its_members(model, inputs):
    generator = torch.Generator().manual_seed(3)
    other = type(inputs)(torch.randn(inputs.latent.shape, generator=generator), inputs.timestep, inputs.text)
    both = type(inputs)(torch.cat([inputs.latent, other.latent]), inputs.timestep, inputs.text)
    expected = torch.cat([forward(model, inputs), forward(model, other)])
    assert relative_error(forward(model, both), expected) <= 1e-6


def test_equal_timesteps_per_frame_equal_one_timestep(model, inputs):
    with torch.inference_mode():
        per_frame = model(inputs.latent, [inputs.timestep] * 3, inputs.conditioning, run_state())
    assert torch.equal(per_frame, forward(model, inputs))


@torch.inference_mode()
def test_per_frame_timesteps_equal_diffusers_per_token(model, inputs):
    frames = [0.0, 500.0, 999.0]
    tokens_per_frame = 3 * 5
    twin = diffusers_twin(model)
    per_token = torch.tensor(frames).repeat_interleave(tokens_per_frame)[None]
    expected = twin(inputs.latent, per_token, padded_text(inputs)).sample
    found = model(inputs.latent, frames, inputs.conditioning, run_state())
    assert relative_error(found, expected) <= FP32_TOLERANCE


def test_the_default_device_of_torch_plays_no_part(model, inputs):
    expected = forward(model, inputs)
    with torch.device("meta"):
        assert torch.equal(forward(model, inputs), expected)


def test_check_is_called_before_every_block_and_stops_the_forward(model, inputs):
    calls = []

    def check():
        calls.append(1)
        if len(calls) == CONFIG.layers:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forward(model, inputs, check=check)
    assert len(calls) == CONFIG.layers


def test_several_prompts_share_the_frames_and_the_last_has_what_is_left_too():
    from comfyui_wanvideo.wanvideo.transformer.model import share_frames

    prompts = [torch.zeros(1)] * 4
    assert [frames for _, frames in share_frames(prompts, 9)] == [(0, 2), (2, 4), (4, 6), (6, 9)]
    assert [frames for _, frames in share_frames(prompts, 2)] == [(0, 1), (1, 2)]


def test_the_same_prompt_twice_equals_it_once(model, inputs):
    from dataclasses import replace

    twice = replace(inputs.conditioning, text=(inputs.text, inputs.text.clone()))
    with torch.inference_mode():
        found = model(inputs.latent, [inputs.timestep], twice, run_state())
    assert relative_error(found, forward(model, inputs)) <= 1e-6


def test_image_branch_parameters_exist_only_where_the_config_says_so():
    plain = {name for name, _ in random_transformer().named_parameters()}
    with torch.device("meta"):
        from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer

        image = WanTransformer(WanConfig(256, 384, 2, 1, 36, 16, 64, has_image_branch=True))
    names = {name for name, _ in image.named_parameters()}
    assert "blocks.0.cross_attn.k_img.weight" in names
    assert not any("k_img" in name for name in plain)
