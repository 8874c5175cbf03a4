"""The size of a video."""

from dataclasses import dataclass

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.conditioning import FamilyInput


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


def latent(frames=1, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(batch, 16, frames, 60, 104, generator=generator)}


def given(embeds_value):
    """Latents and indices of the clean frames."""
    return [(each.latent, each.index) for each in embeds_value.inputs["clean_frames"].given]


def test_an_extra_latent_is_the_first_frame(embeds):
    first = latent()
    ((found, index),) = given(make(embeds, extra_latents=first))
    assert index == 0
    assert torch.equal(found, first["samples"])


def test_extra_latents_can_be_chained(embeds):
    first, last = latent(), latent(seed=1)
    node = embeds.WanVideoAddExtraLatent
    value = node.execute(embeds=make(embeds, extra_latents=first), extra_latents=last, latent_index=-1)[0]
    assert [index for _, index in given(value)] == [0, -1]
    assert torch.equal(given(value)[1][0], last["samples"])


def test_adding_an_extra_latent_leaves_the_embeds_it_was_given_alone(embeds):
    before = make(embeds)
    embeds.WanVideoAddExtraLatent.execute(embeds=before, extra_latents=latent(), latent_index=0)
    assert before.inputs == {}


def test_a_batch_of_extra_latents_comes_one_after_the_other(embeds):
    batch = latent(batch=3)
    ((found, _),) = given(make(embeds, extra_latents=batch))
    assert found.shape == (1, 16, 3, 60, 104)
    assert torch.equal(found[0, :, 2], batch["samples"][2, :, 0])


def test_a_picture_latent_is_refused_by_name(embeds):
    with pytest.raises(Exception, match=r"^WanVideo Empty Embeds: extra_latents: expected a video latent"):
        make(embeds, extra_latents={"samples": torch.zeros(1, 4, 8, 8)})


@dataclass(frozen=True)
class Control(FamilyInput):
    values: tuple = ()


def with_control(embeds, name="control", values=(), **size):
    return make(embeds, **size).with_input(name, Control(values=values))


def test_control_embeds_bring_their_inputs(embeds):
    assert set(make(embeds, control_embeds=with_control(embeds)).inputs) == {"control"}


def test_the_size_is_that_of_the_node_and_another_one_is_said(embeds, caplog):
    found = make(embeds, control_embeds=with_control(embeds, num_frames=41))
    assert found.geometry.frames == 81
    assert "control_embeds were made for 832x480, 41 frames; the video has 832x480, 81 frames" in caplog.text


def combine(embeds, first, second):
    return embeds.WanVideoCombineEmbeds.execute(embeds_1=first, embeds_2=second)[0]


def test_combined_embeds_carry_the_inputs_of_both(embeds):
    found = combine(embeds, with_control(embeds), with_control(embeds, "phantom"))
    assert set(found.inputs) == {"control", "phantom"}


def test_combined_embeds_have_the_size_of_the_first_and_say_so(embeds, caplog):
    found = combine(embeds, with_control(embeds), with_control(embeds, "phantom", width=640))
    assert found.geometry.width == 832
    assert "embeds_2 were made for 640x480, 81 frames" in caplog.text


def test_two_inputs_of_one_name_are_refused_by_name(embeds):
    first, second = (with_control(embeds, values=(torch.full((2,), float(n)),)) for n in (0, 1))
    with pytest.raises(Exception, match="embeds_2: both sets of embeds carry an input for control"):
        combine(embeds, first, second)


def test_two_equal_inputs_of_one_name_are_one(embeds):
    first, second = (with_control(embeds, values=(torch.zeros(2), "a")) for _ in range(2))
    assert combine(embeds, first, second).inputs["control"] is first.inputs["control"]


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (torch.zeros(2), torch.zeros(2), True),
        (torch.zeros(2), torch.ones(2), False),
        (torch.zeros(2), torch.zeros(3), False),
        ((torch.zeros(2), 1), (torch.zeros(2), 1), True),
        ((torch.zeros(2),), (torch.zeros(2), 1), False),
        (1, 1.0, False),
        ("a", "a", True),
    ],
)
def test_inputs_are_compared_by_value(embeds, first, second, equal):
    assert embeds.are_equal(first, second) is equal


@pytest.mark.parametrize("node", ["WanVideoAddExtraLatent", "WanVideoCombineEmbeds"])
def test_embeds_of_another_pack_that_cannot_be_read_are_refused(embeds, node):
    foreign = {"target_shape": (16, 21, 60, 104), "vace_context": object()}
    inputs = {
        "WanVideoAddExtraLatent": {"embeds": foreign, "extra_latents": latent(), "latent_index": 0},
        "WanVideoCombineEmbeds": {"embeds_1": make(embeds), "embeds_2": foreign},
    }[node]
    with pytest.raises(Exception, match="vace_context in them cannot be read"):
        getattr(embeds, node).execute(**inputs)


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
