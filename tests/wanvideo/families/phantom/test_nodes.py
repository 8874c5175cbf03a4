"""The node of Phantom."""

import importlib

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange

PLAIN = {"phantom_cfg_scale": 5.0, "phantom_start_percent": 0.0, "phantom_end_percent": 1.0}


@pytest.fixture
def nodes(comfyui_path):
    return importlib.import_module("comfyui_wanvideo.wanvideo.families.phantom.nodes")


@pytest.fixture
def embeds(nodes):
    def run(**inputs):
        given = {"num_frames": 81, "phantom_latent_1": latent(), "guidance": "three passes", **PLAIN}
        return nodes.WanVideoPhantomEmbeds.execute(**{**given, **inputs})[0]

    return run


def latent(*shape):
    return {"samples": torch.rand(shape or (1, 16, 1, 6, 8))}


def test_the_video_gets_the_size_of_the_first_picture(embeds):
    geometry = embeds(phantom_latent_2=latent(1, 16, 1, 4, 4)).geometry
    assert (geometry.width, geometry.height, geometry.frames) == (64, 48, 81)


def test_latents_of_the_5b_count_16_pixels_each(embeds):
    geometry = embeds(phantom_latent_1=latent(1, 48, 1, 6, 8)).geometry
    assert (geometry.width, geometry.height, geometry.spatial_stride) == (128, 96, 16)


def test_a_size_the_model_cannot_make_is_snapped_and_said(embeds, caplog):
    geometry = embeds(phantom_latent_1=latent(1, 16, 1, 7, 8), num_frames=8).geometry
    assert (geometry.height, geometry.frames) == (48, 5)
    assert "height 56 is not a multiple of 16: rounded to 48" in caplog.text


def test_references_are_in_the_order_of_their_sockets(embeds):
    first, third = latent(), latent()
    references = embeds(phantom_latent_3=third, phantom_latent_1=first).inputs["phantom"].references
    assert references[0] is first["samples"]
    assert references[1] is third["samples"]


def test_scale_and_steps_are_taken(embeds):
    phantom = embeds(phantom_cfg_scale=[3.0, 2.0], phantom_start_percent=0.2, phantom_end_percent=0.7).inputs[
        "phantom"
    ]
    assert phantom.scale == [3.0, 2.0]
    assert phantom.steps == StepRange(0.2, 0.7)


def test_other_inputs_are_kept(embeds):
    before = embeds()
    after = embeds(vace_embeds=before.with_input("vace", before.inputs["phantom"]))
    assert set(after.inputs) == {"vace", "phantom"}


def test_a_new_node_has_three_passes(nodes):
    schema = nodes.WanVideoPhantomEmbeds.GET_SCHEMA()
    (guidance,) = (each for each in schema.inputs if each.id == "guidance")
    assert guidance.default == "three passes"


@pytest.mark.parametrize("missing", [{}, {"guidance": ""}, {"guidance": None}])
def test_prompts_of_the_predecessor_run_as_there_and_that_is_said(nodes, missing, caplog):
    inputs = {"num_frames": 81, "phantom_latent_1": latent(), **PLAIN, **missing}
    embeds = nodes.WanVideoPhantomEmbeds.execute(**inputs)[0]
    assert embeds.inputs["phantom"].form == "as WanVideoWrapper"
    assert "4 frames shorter than num_frames" in caplog.text
    assert "set guidance to 'three passes'" in caplog.text


@pytest.mark.parametrize("value", ["three passes", "as WanVideoWrapper", "", None])
def test_the_forms_and_the_empty_value_are_valid(nodes, value):
    assert nodes.WanVideoPhantomEmbeds.validate_inputs(guidance=value) is True


def test_another_form_is_refused_by_name(nodes):
    assert "guidance: 'two'" in nodes.WanVideoPhantomEmbeds.validate_inputs(guidance="two")


@pytest.mark.parametrize("shape", [(2, 16, 1, 6, 8), (1, 16, 6, 8)])
def test_what_is_no_latent_of_a_picture_is_refused_with_its_shape(embeds, shape):
    with pytest.raises(
        Exception, match=r"^WanVideo Phantom Embeds: phantom_latent_1: expected the latent of"
    ):
        embeds(phantom_latent_1=latent(*shape))
