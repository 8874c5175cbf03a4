"""Which models take pictures, and what is said when they are missing."""

from __future__ import annotations

import logging
from copy import deepcopy

import pytest
import torch
from comfyui_wanvideo.wanvideo import request_checks
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.clean_frames import CLEAN_FRAMES, CleanFramesInput, GivenLatent
from comfyui_wanvideo.wanvideo.conditioning.clip_input import CLIP
from comfyui_wanvideo.wanvideo.conditioning.image import IMAGE
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.generation import GenerationRequest, generate
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions
from comfyui_wanvideo.wanvideo.weights.plan import Placement
from comfyui_wanvideo.wanvideo.weights.residency import ModelResidency
from comfyui_wanvideo.wanvideo.weights.slab import Pinning
from comfyui_wanvideo.wanvideo.weights.streams import SynchronousStreams

from .conftest import (
    CAMERA_22,
    FLF,
    FRAMES,
    I2V,
    I2V_22,
    INP_5B,
    LATENT,
    TEXT,
    TEXT_ONLY,
    TI2V,
    TIMESTEP,
    clip_input,
    conditioning,
    forward,
    i2v_inputs,
    noise,
    relative_error,
    run_state,
    setup_of,
    start_image,
)

NEGATIVE_TEXT = noise(7, 256, seed=8)
STEPS = 3


def request(model, inputs, **changes) -> GenerationRequest:
    schedule = build_schedule("euler", STEPS, 5.0)
    values = {
        "geometry": setup_of(model).geometry,
        "text": TextEmbeds((TEXT,), (NEGATIVE_TEXT,)),
        "schedule": schedule,
        "steps": (0, schedule.steps),
        "cfg": 4.0,
        "seed": 7,
        "inputs": inputs,
    }
    return GenerationRequest(**{**values, **changes})


def run(model, inputs, **changes):
    return generate(model, request(model, inputs, **changes), RunOptions(attention=sdpa), device="cpu")


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        (I2V, {IMAGE, CLIP}),
        (FLF, {IMAGE, CLIP}),
        (I2V_22, {IMAGE}),
        (TI2V, {IMAGE}),
        (INP_5B, {IMAGE}),
        (TEXT_ONLY, set()),
    ],
)
def test_shapes_say_what_a_model_takes(load, name, accepted):
    assert load(name).accepted_inputs() & {IMAGE, CLIP} == accepted


@pytest.mark.parametrize(("name", "width"), [(I2V, 20), (I2V_22, 20), (TI2V, 0), (INP_5B, 52)])
def test_the_channels_are_those_the_patch_embedding_has_room_for(load, name, width):
    model = load(name)
    assert model.points.channels[IMAGE].width == width
    assert model.config.in_channels == model.config.out_channels + width


@pytest.mark.parametrize("name", [I2V, I2V_22])
def test_a_model_that_needs_an_image_says_which_node_makes_it(load, name):
    with pytest.raises(InputError, match="start image; connect WanVideo ImageToVideo Encode"):
        run(load(name), {})


@pytest.mark.parametrize("name", [TI2V, INP_5B, CAMERA_22])
def test_models_that_know_video_without_an_image_run_without(load, name):
    model = load(name)
    request_checks.check_channels(model, {})
    assert forward(model, {}).isfinite().all()


def test_a_text_to_video_model_refuses_an_image(load):
    with pytest.raises(InputError, match=r"an input for image, .* an image-to-video model"):
        run(load(TEXT_ONLY), {IMAGE: start_image()})


def test_clip_rows_change_nothing_in_a_model_without_the_branch_and_it_is_said(load, caplog):
    model, image = load(I2V_22), start_image()
    with caplog.at_level(logging.INFO):
        found = run(model, {IMAGE: image, CLIP: clip_input()})
    assert torch.equal(found.latent, run(model, {IMAGE: image}).latent)
    assert caplog.text.count("no use for the input 'clip'") == 1


def test_missing_clip_rows_are_one_warning(load, caplog):
    run(load(I2V), {IMAGE: start_image()})
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "no clip_embeds" in warnings[0]


def test_nothing_is_warned_of_when_all_is_given(load, caplog):
    run(load(I2V), i2v_inputs())
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_the_negative_pass_reads_the_negative_picture(load):
    model, image, clip = load(I2V), start_image(), clip_input()
    other = type(clip)(rows=clip.rows, negative=clip_input(seed=9).rows)
    plain = run(model, {IMAGE: image, CLIP: clip})
    assert relative_error(run(model, {IMAGE: image, CLIP: other}).latent, plain.latent) > 1e-4


def test_without_guidance_the_negative_picture_plays_no_part(load):
    model, image, clip = load(I2V), start_image(), clip_input()
    other = type(clip)(rows=clip.rows, negative=clip_input(seed=9).rows)
    plain = run(model, {IMAGE: image, CLIP: clip}, cfg=1.0)
    assert torch.equal(run(model, {IMAGE: image, CLIP: other}, cfg=1.0).latent, plain.latent)


@pytest.mark.parametrize("name", [TI2V, INP_5B])
def test_the_5b_models_return_the_start_image_as_it_was_given(load, name):
    given = start_image(48)
    found = run(load(name), {IMAGE: given}).latent
    assert relative_error(found[:, :, 0], given.latent.values[:, :, 0]) <= 1e-6


def test_an_image_and_the_same_latent_as_clean_frame_are_the_same_to_the_5b_model(load):
    given = start_image(48)
    frame = CleanFramesInput(given=(GivenLatent(given.latent.values[:, :, :1], 0),))
    as_image = run(load(TI2V), {IMAGE: given}).latent
    assert torch.equal(run(load(TI2V), {CLEAN_FRAMES: frame}).latent, as_image)


def test_an_end_image_added_to_the_start_image_stays_too(load):
    given, end = start_image(48), noise(1, 48, 1, 6, 10, seed=6)
    frame = CleanFramesInput(given=(GivenLatent(end, -1),))
    found = run(load(TI2V), {IMAGE: given, CLEAN_FRAMES: frame}).latent
    assert relative_error(found[:, :, -1:], end) <= 1e-6
    assert relative_error(found[:, :, :1], given.latent.values[:, :, :1]) <= 1e-6


def test_references_are_sampled_in_front_and_left_out_by_the_decode_plan(load):
    model, image = load(I2V_22), start_image()
    added = noise(1, 16, 2, 6, 10, seed=6)
    mask = torch.ones(1, 4, 2, 6, 10)
    with_references = type(image)(
        type(image.latent)(torch.cat([added, image.latent.values], dim=2)),
        type(image.mask)(torch.cat([mask, image.mask.values], dim=2)),
        reference_frames=2,
    )
    found = run(model, {IMAGE: with_references})
    assert found.latent.shape[2] == FRAMES + 2
    assert (found.decode.leading_frames, found.decode.latent_frames) == (2, FRAMES + 2)


def test_streamed_blocks_give_what_resident_ones_give_bit_for_bit(load):
    # A copy lies aligned in memory, as streamed weights do; rounding of a mapped file may differ.
    model, inputs = deepcopy(load(I2V)), i2v_inputs()
    expected = forward(model, inputs)
    streams = SynchronousStreams(torch.device("cpu"))
    residency = ModelResidency(
        model,
        [stage.block for stage in model.stages()],
        embedders=model.embedders(),
        pin=Pinning(lambda _slab: True, lambda _slab: None),
        make_streams=lambda _device: streams,
    )
    residency.apply(Placement(len(model.blocks), (0, 1, 3), 2))
    residency.load(torch.device("cuda", 0))
    assert torch.equal(forward(model, inputs, walk=residency.walk), expected)


def test_the_image_embedder_is_not_needed_after_the_run_is_prepared(load):
    model = load(I2V)
    assert model.img_emb in model.embedders()
    prepared = []
    state = run_state(on_prepared=lambda: prepared.append(True))
    given = conditioning(model, i2v_inputs())
    with torch.inference_mode():
        model.prepare_run(state, [TIMESTEP], [given])
        whole = forward(model, i2v_inputs())
        weights = model.img_emb.proj[3].weight
        table = weights.data
        try:
            weights.data = torch.full_like(table, float("nan"))
            found = model(LATENT, [TIMESTEP], given, state)
        finally:
            weights.data = table
    assert prepared == [True]
    assert relative_error(found, whole) <= 1e-6
