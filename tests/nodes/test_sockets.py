"""Values of other packs on our sockets."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.errors import InputError


@pytest.fixture
def sockets(node_module):
    return node_module("sockets")


def test_our_text_embeds_pass(sockets):
    embeds = TextEmbeds((torch.ones(2, 4),))
    assert sockets.as_text_embeds(embeds) is embeds


def test_text_embeds_of_another_pack_are_read(sockets):
    positive, negative = torch.ones(2, 4), torch.zeros(1, 3, 4)
    embeds = sockets.as_text_embeds(
        {"prompt_embeds": [positive, positive], "negative_prompt_embeds": negative, "echoshot": True}
    )
    assert [tuple(rows.shape) for rows in embeds.prompt_embeds] == [(2, 4), (2, 4)]
    assert [tuple(rows.shape) for rows in embeds.negative_prompt_embeds] == [(3, 4)]
    assert embeds.is_echoshot


@pytest.mark.parametrize("value", [None, 3, {}, {"prompt_embeds": [torch.ones(4)]}])
def test_other_values_are_no_text_embeds(sockets, value):
    with pytest.raises(InputError, match=r"^text_embeds: expected"):
        sockets.as_text_embeds(value)


@pytest.mark.parametrize(("channels", "stride"), [(16, 8), (48, 16)])
def test_size_of_another_packs_image_embeds_is_read(sockets, channels, stride):
    embeds = sockets.as_image_embeds(
        {"target_shape": (channels, 21, 60, 104), "num_frames": 81, "vace": None}
    )
    geometry = embeds.geometry
    assert (geometry.width, geometry.height, geometry.frames) == (104 * stride, 60 * stride, 81)
    assert geometry.latent_shape(channels) == (1, channels, 21, 60, 104)


def test_image_embeds_with_unknown_entries_are_refused_by_name(sockets):
    value = {"target_shape": (16, 21, 60, 104), "phantom_latents": torch.ones(1)}
    with pytest.raises(InputError, match="phantom_latents"):
        sockets.as_image_embeds(value)


def test_adding_a_family_input_leaves_the_old_embeds_alone(sockets):
    first = sockets.as_image_embeds({"target_shape": (16, 1, 8, 8)})
    second = first.with_input("vace", 1)
    assert "vace" not in first.inputs
    assert second.inputs["vace"] == 1
