"""The size of a video."""

from dataclasses import dataclass

import pytest
import torch


@pytest.fixture
def embeds(node_module):
    return node_module("embeds")


def make(embeds, **more):
    return embeds.WanVideoEmptyEmbeds.execute(**{"width": 832, "height": 480, "num_frames": 81, **more})[0]


def test_a_possible_size_is_kept(embeds, caplog):
    geometry = make(embeds).geometry
    assert (geometry.width, geometry.height, geometry.frames) == (832, 480, 81)
    assert caplog.text == ""


def test_an_impossible_size_is_rounded_down(embeds):
    geometry = make(embeds, width=100, height=68, num_frames=8).geometry
    assert (geometry.width, geometry.height, geometry.frames) == (96, 64, 5)


@pytest.mark.parametrize(
    "said",
    [
        "width 100 is not a multiple of 16: rounded to 96",
        "height 68 is not a multiple of 16: rounded to 64",
        "num_frames 8 is not 4n+1: rounded to 5",
        "WanVideo Empty Embeds",
    ],
)
def test_rounding_is_said_in_a_warning(embeds, caplog, said):
    make(embeds, width=100, height=68, num_frames=8)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert said in caplog.text


@pytest.mark.parametrize("name", ["control_embeds", "extra_latents"])
def test_inputs_of_later_versions_are_refused_by_name(embeds, name):
    with pytest.raises(Exception, match=f"^WanVideo Empty Embeds: {name}: .* not available in this version"):
        make(embeds, **{name: object()})


def test_preview_shows_the_pictures_of_a_family(embeds, node_module):
    latent, mask = torch.randn(1, 16, 3, 4, 4), torch.ones(3, 4, 4)

    @dataclass(frozen=True)
    class Pictures:
        def preview(self):
            return latent, mask

    value = make(embeds).with_input("image_to_video", Pictures())
    output = embeds.WanVideoPreviewEmbeds.execute(embeds=value)
    assert output[0]["samples"] is latent
    assert output[1] is mask


def test_preview_of_a_bare_size_is_an_error_with_the_size(embeds):
    with pytest.raises(Exception, match="832x480, 81 frames"):
        embeds.WanVideoPreviewEmbeds.execute(embeds=make(embeds))
