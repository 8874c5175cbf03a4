"""Fun Control in the forward: parity with ComfyUI, and what must change nothing."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.control import CONTROL, ControlInput
from comfyui_wanvideo.wanvideo.conditioning.image import IMAGE, ImageInput
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.fun_control.inputs import FUN_REFERENCE, FunReferenceInput
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

from .conftest import (
    COLUMNS,
    FRAMES,
    ROWS,
    TIMESTEP,
    forward,
    noise,
    prepared,
    relative_error,
    setup_of,
    theirs,
    video_latent,
)

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2e-2
CONTROLS = ("wan21_fun_control", "wan21_fun_control_ref", "wan22_fun_control", "wan22_fun_control_5b")
WITH_REFERENCE = CONTROLS[1:]


def control(model, **more):
    return ControlInput(latent=Timed(video_latent(model, seed=5)), **more)


def image(model, known=1):
    mask = torch.zeros(1, 4, FRAMES, ROWS, COLUMNS)
    mask[:, :, :known] = 1
    return ImageInput(Timed(video_latent(model, seed=6)), Timed(mask))


def reference(model, frames=1):
    return FunReferenceInput(latent=video_latent(model, seed=7, frames=frames))


def expected_channels(model, has_image):
    """Noise and conditions as the original joins them (VideoX-Fun), normalised."""
    space, zero = latent_space_for(model.config.out_channels), torch.zeros_like(video_latent(model))
    picture, mask = zero.clone(), torch.zeros(1, 4, *zero.shape[2:])
    if has_image:
        known = 1 if model.config.in_channels == 48 else FRAMES
        picture[:, :, :known] = space.normalise(video_latent(model, seed=6))[:, :, :known]
        mask[:, :, 0] = 1
    parts = [video_latent(model), space.normalise(video_latent(model, seed=5))]
    parts += [picture] if model.config.in_channels == 48 else [mask, picture]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("has_image", [False, True])
@pytest.mark.parametrize("name", CONTROLS)
def test_a_forward_equals_comfyui_in_fp32(load, comfyui_path, name, has_image):
    model = load(name)
    inputs = {CONTROL: control(model), **({IMAGE: image(model)} if has_image else {})}
    conditions = {}
    if name in WITH_REFERENCE:
        inputs[FUN_REFERENCE] = reference(model)
        space = latent_space_for(model.config.out_channels)
        conditions["reference_latent"] = space.normalise(reference(model).latent)[:, :, 0]
    expected = theirs(model, expected_channels(model, has_image), **conditions)
    # one timestep for all frames: what the 5B keeps clean is not ComfyUI's forward to say
    assert relative_error(forward(model, inputs), expected) <= FP32_TOLERANCE


@pytest.mark.parametrize("name", ["wan21_fun_control_ref", "wan22_fun_control"])
def test_a_bf16_forward_is_close_to_comfyui_in_fp32(load, comfyui_path, name):
    model = load(name)
    space = latent_space_for(model.config.out_channels)
    latent = space.normalise(reference(model).latent)[:, :, 0]
    expected = theirs(model, expected_channels(model, has_image=False), reference_latent=latent)
    found = forward(load(name, torch.bfloat16), {CONTROL: control(model), FUN_REFERENCE: reference(model)})
    assert relative_error(found, expected) <= BF16_TOLERANCE


@pytest.mark.parametrize("name", CONTROLS)
def test_without_any_input_all_conditions_are_zeros(load, comfyui_path, name):
    model = load(name)
    latent = video_latent(model)
    rest = torch.zeros(1, model.config.in_channels - latent.shape[1], *latent.shape[2:])
    expected = theirs(model, torch.cat([latent, rest], dim=1))
    assert relative_error(forward(model, {}), expected) <= FP32_TOLERANCE


@pytest.mark.parametrize(("name", "input_name"), [(n, i) for n in CONTROLS for i in (CONTROL, IMAGE)])
def test_control_and_image_change_the_prediction(load, name, input_name):
    model = load(name)
    value = control(model) if input_name == CONTROL else image(model)
    assert relative_error(forward(model, {input_name: value}), forward(model, {})) > 1e-2


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_a_reference_changes_the_prediction_and_not_its_size(load, name):
    model = load(name)
    found, plain = forward(model, {FUN_REFERENCE: reference(model)}), forward(model, {})
    assert found.shape == plain.shape
    assert relative_error(found, plain) > 1e-2


def test_control_outside_its_steps_is_as_if_there_were_none(load):
    model = load("wan22_fun_control")
    value = control(model, steps=StepRange(0.5, 1.0))
    outside, inside = value.at(0, 4), value.at(2, 4)
    assert outside is None
    assert inside is value


def test_the_reference_takes_part_in_all_steps(load):
    value = reference(load("wan22_fun_control"))
    assert all(value.at(step, 4) is value for step in range(4))


def test_only_the_first_frame_of_an_image_reaches_a_model_without_mask(load):
    """Frames that are known behind it, as with several start pictures or an end image, are not there."""
    model = load("wan21_fun_control")
    one, all_known = (
        forward(model, {IMAGE: image(model)}),
        forward(model, {IMAGE: image(model, known=FRAMES)}),
    )
    assert torch.equal(one, all_known)


def test_an_image_whose_first_frame_is_unknown_changes_nothing_in_a_model_without_mask(load):
    model = load("wan21_fun_control")
    assert torch.equal(forward(model, {IMAGE: image(model, known=0)}), forward(model, {}))


def test_a_window_without_the_first_frame_has_no_start_image(load):
    model = load("wan21_fun_control")
    value = prepared(model, {IMAGE: image(model)})[IMAGE].window([1, 2])
    part = model.points.channels[IMAGE].channels(value, video_latent(model, frames=2))
    assert torch.equal(part, torch.zeros(1, 16, 2, ROWS, COLUMNS))


@pytest.mark.parametrize("row_chunks", [1, 3])
def test_row_chunks_change_nothing_but_rounding(load, row_chunks):
    model = load("wan22_fun_control")
    inputs = {CONTROL: control(model), FUN_REFERENCE: reference(model)}
    found = forward(model, inputs, row_chunks=row_chunks)
    assert relative_error(found, forward(model, inputs)) <= FP32_TOLERANCE


def test_every_video_of_a_batch_sees_the_reference(load):
    model = load("wan22_fun_control")
    inputs = {CONTROL: control(model), FUN_REFERENCE: reference(model)}
    latents = [video_latent(model), video_latent(model, seed=8)]
    expected = torch.cat([forward(model, inputs, latent=latent) for latent in latents])
    assert relative_error(forward(model, inputs, latent=torch.cat(latents)), expected) <= 1e-6


def test_the_reference_is_as_noisy_as_the_last_frame(load):
    """A first frame that is given clean, as in the 5B, does not make the reference clean."""
    model = load("wan22_fun_control_5b")
    value = prepared(model, {FUN_REFERENCE: reference(model)})[FUN_REFERENCE]
    point = model.points.segments[FUN_REFERENCE]
    (segment,), behind = point.segments(value, (FRAMES, 3, 5), [0.0, TIMESTEP, TIMESTEP])
    assert segment.timesteps == (TIMESTEP,)
    assert behind == []


@torch.inference_mode()
def test_the_reference_stands_one_frame_before_the_video(load):
    model = load("wan22_fun_control")
    value = prepared(model, {FUN_REFERENCE: reference(model)})[FUN_REFERENCE]
    (segment,), _ = model.points.segments[FUN_REFERENCE].segments(value, (FRAMES, 3, 5), [TIMESTEP])
    assert segment.positions[0].tolist() == [-1, 0, 0]
    assert segment.positions[-1].tolist() == [-1, 2, 4]
    assert segment.tokens.shape == (1, value.extra_tokens(setup_of(model).geometry), 256)


def test_the_token_of_a_place_is_the_product_with_its_four_latents(load):
    model = load("wan22_fun_control")
    latent = noise(1, 16, ROWS, COLUMNS, seed=9)
    weight, bias = model.ref_conv.weight, model.ref_conv.bias
    by_hand = torch.einsum("dchw,chw->d", weight, latent[0, :, 2:4, 6:8]) + bias
    torch.testing.assert_close(model.ref_conv.tokens(latent)[0, 1 * 5 + 3], by_hand, atol=1e-5, rtol=1e-5)
