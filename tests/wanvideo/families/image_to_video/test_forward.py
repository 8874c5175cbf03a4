"""Parity of one forward with independent implementations."""

from __future__ import annotations

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.clip_input import CLIP
from comfyui_wanvideo.wanvideo.conditioning.image import IMAGE, ImageInput
from torch.nn.functional import pad

from ...transformer.twins import comfy_twin, diffusers_twin
from .conftest import (
    FLF,
    FRAMES,
    I2V,
    I2V_22,
    INP_5B,
    LATENT,
    TEXT,
    TI2V,
    TIMESTEP,
    WIDE_LATENT,
    clip_input,
    conditioning,
    forward,
    i2v_inputs,
    relative_error,
    start_image,
)

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2e-2
TOKENS_PER_FRAME = 3 * 5
PADDED_TEXT = pad(TEXT, (0, 0, 0, 512 - len(TEXT)))[None]


def joined_channels(model, inputs):
    image = conditioning(model, inputs).inputs[IMAGE]
    assert isinstance(image, ImageInput)
    latent = WIDE_LATENT if model.config.out_channels == 48 else LATENT
    return torch.cat([latent, image.mask.values, image.latent.values], dim=1)


CASES = [(I2V, 1, None), (FLF, 2, 514)]


@pytest.mark.parametrize(("name", "pictures", "positions"), CASES)
@torch.inference_mode()
def test_forward_equals_diffusers_in_fp32(load, name, pictures, positions):
    model, inputs = load(name), i2v_inputs(pictures)
    rows = inputs[CLIP].rows.reshape(pictures, -1, 1280)  # its table of positions wants them so
    twin = diffusers_twin(model, pos_embed_seq_len=positions)
    expected = twin(joined_channels(model, inputs), torch.tensor([TIMESTEP]), PADDED_TEXT, rows).sample
    assert relative_error(forward(model, inputs), expected) <= FP32_TOLERANCE


@pytest.mark.parametrize(("name", "pictures", "positions"), [*CASES, (FLF, 1, 514)])
@torch.inference_mode()
def test_forward_equals_comfyui_in_fp32(load, comfyui_path, name, pictures, positions):
    model, inputs = load(name), i2v_inputs(pictures)
    twin = comfy_twin(model, flf_pos_embed_token_number=positions)
    expected = twin(
        joined_channels(model, inputs),
        torch.tensor([TIMESTEP]),
        context=PADDED_TEXT,
        clip_fea=inputs[CLIP].rows,
    )
    assert relative_error(forward(model, inputs), expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_wan22_without_clip_branch_equals_comfyui(load, comfyui_path):
    model, inputs = load(I2V_22), {IMAGE: start_image()}
    expected = comfy_twin(model)(
        joined_channels(model, inputs), torch.tensor([TIMESTEP]), context=PADDED_TEXT
    )
    assert relative_error(forward(model, inputs), expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_bf16_forward_is_as_close_to_fp32_as_diffusers_own(load):
    model, inputs = load(I2V), i2v_inputs()
    expected = forward(model, inputs)
    twin = diffusers_twin(model).type(torch.bfloat16)
    theirs = twin(
        joined_channels(model, inputs).bfloat16(),
        torch.tensor([TIMESTEP]),
        PADDED_TEXT.bfloat16(),
        inputs[CLIP].rows.bfloat16(),
    ).sample
    ours = relative_error(forward(load(I2V, torch.bfloat16), inputs), expected)
    assert ours <= BF16_TOLERANCE
    assert ours <= 1.1 * relative_error(theirs, expected)


def clean_first_frame_timesteps():
    return torch.tensor([0.0] * TOKENS_PER_FRAME + [TIMESTEP] * TOKENS_PER_FRAME * (FRAMES - 1))[None]


@torch.inference_mode()
def test_a_start_image_of_the_5b_model_equals_diffusers_timesteps_per_token(load):
    model = load(TI2V)
    expected = diffusers_twin(model)(WIDE_LATENT, clean_first_frame_timesteps(), PADDED_TEXT).sample
    found = forward(model, {IMAGE: start_image(48)})
    assert relative_error(found, expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_a_start_image_of_the_5b_model_equals_comfyuis_timesteps_per_frame(load, comfyui_path):
    model = load(TI2V)
    frames = torch.tensor([[0.0] + [TIMESTEP] * (FRAMES - 1)])
    expected = comfy_twin(model)(WIDE_LATENT, frames, context=PADDED_TEXT)
    found = forward(model, {IMAGE: start_image(48)})
    assert relative_error(found, expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_fun_inp_of_the_5b_model_takes_channels_and_a_clean_first_frame(load):
    model, inputs = load(INP_5B), {IMAGE: start_image(48)}
    twin = diffusers_twin(model)
    expected = twin(joined_channels(model, inputs), clean_first_frame_timesteps(), PADDED_TEXT).sample
    assert relative_error(forward(model, inputs), expected) <= FP32_TOLERANCE


def test_the_positions_of_first_and_last_frame_models_have_an_effect(load):
    model, inputs = load(FLF), i2v_inputs(2)
    found = forward(model, inputs)
    table = model.img_emb.emb_pos.data  # a read-only view on the file
    try:
        model.img_emb.emb_pos.data = torch.zeros_like(table)
        without = forward(model, inputs)
    finally:
        model.img_emb.emb_pos.data = table
    assert relative_error(without, found) > 1e-4


def test_two_pictures_as_a_batch_are_the_pair_a_first_and_last_frame_model_expects(load):
    model = load(FLF)
    pair, batch = clip_input(2), clip_input(1, batch=2)
    assert torch.equal(pair.rows.flatten(), batch.rows.flatten())
    found = forward(model, {IMAGE: start_image(), CLIP: batch})
    assert torch.equal(found, forward(model, {IMAGE: start_image(), CLIP: pair}))


@pytest.mark.parametrize("chunks", [1, 3])
def test_row_chunks_change_only_rounding(load, chunks):
    model, inputs = load(I2V), {IMAGE: start_image(), CLIP: clip_input(batch=2)}
    whole = forward(model, inputs)
    assert relative_error(forward(model, inputs, row_chunks=chunks), whole) <= 1e-5


def test_pictures_of_a_batch_share_the_frames(load):
    """Equal pictures are one picture; a second one reaches the result through its own frames."""
    model, one = load(I2V), clip_input()
    same = type(one)(rows=one.rows.expand(2, -1, -1))
    other = type(one)(rows=torch.cat([one.rows, clip_input(seed=9).rows]))
    plain = forward(model, {IMAGE: start_image(), CLIP: one})
    assert relative_error(forward(model, {IMAGE: start_image(), CLIP: same}), plain) <= 1e-6
    assert relative_error(forward(model, {IMAGE: start_image(), CLIP: other}), plain) > 1e-4


def test_without_clip_rows_the_branch_is_left_out(load):
    model = load(I2V)
    found = forward(model, {IMAGE: start_image()})
    biases = [block.cross_attn.v_img.bias for block in model.blocks]
    tables = [(bias, bias.data) for bias in biases]
    try:
        for bias in biases:
            bias.data = bias.data + 1.0
        assert torch.equal(forward(model, {IMAGE: start_image()}), found)
    finally:
        for bias, values in tables:
            bias.data = values
