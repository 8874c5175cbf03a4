"""The node of Time-to-Move."""

import importlib

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.families.time_to_move.edit import StepWindow


@pytest.fixture
def nodes(comfyui_path):
    return importlib.import_module("comfyui_wanvideo.wanvideo.families.time_to_move.nodes")


@pytest.fixture
def add(nodes):
    from comfyui_wanvideo.nodes.sockets import ImageEmbeds

    def run(**inputs):
        given = {
            "embeds": ImageEmbeds(VideoGeometry(64, 48, 9)),
            "reference_latents": {"samples": torch.zeros(1, 16, 3, 6, 8)},
            "mask": torch.ones(9, 48, 64),
            "start_step": 1,
            "end_step": 3,
        }
        return nodes.WanVideoAddTTMLatents.execute(**{**given, **inputs})[0]

    return run


def test_the_movement_is_added_to_the_embeds(add):
    embeds = add(embeds=add().with_input("image", add().inputs["time_to_move"]))
    assert set(embeds.inputs) == {"image", "time_to_move"}
    assert embeds.inputs["time_to_move"].moved_steps == StepWindow(1, 3)


def test_a_mask_of_one_picture_is_taken(add):
    assert add(mask=torch.ones(48, 64)).inputs["time_to_move"].mask.shape == (1, 48, 64)


def test_an_end_before_the_start_is_refused_with_both(add):
    with pytest.raises(Exception, match="end_step: 2 lies before start_step 4"):
        add(start_step=4, end_step=2)
