"""The nodes that put a control video into embeds."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.control import CONTROL
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.image import IMAGE, ImageInput
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.fun_control.inputs import FUN_REFERENCE

STEPS = {"start_percent": 0.1, "end_percent": 0.7}


@pytest.fixture
def control(node_module):
    return node_module("control")


@pytest.fixture
def sockets(node_module):
    return node_module("sockets")


def latents(*shape):
    return {"samples": torch.rand(*(shape or (1, 16, 3, 6, 8)))}


def image(frames=5, **more):
    mask = torch.zeros(1, 4, frames, 6, 8)
    mask[:, :, 0] = 1
    return ImageInput(Timed(torch.rand(1, 16, frames, 6, 8)), Timed(mask), **more)


def embeds_of(sockets, frames=17, **inputs):
    return sockets.ImageEmbeds(VideoGeometry(64, 48, frames), inputs)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 16, 3, 6, 8), (64, 48, 9, 8)),
        ((1, 48, 2, 4, 6), (96, 64, 5, 16)),
        ((16, 3, 6, 8), (64, 48, 9, 8)),
    ],
)
def test_the_video_gets_the_size_of_the_clip(control, shape, size):
    embeds = control.WanVideoControlEmbeds.execute(latents=latents(*shape), **STEPS)[0]
    found = embeds.geometry
    assert (found.width, found.height, found.frames, found.spatial_stride) == size


def test_a_clip_of_odd_size_gives_the_next_smaller_video(control, caplog):
    embeds = control.WanVideoControlEmbeds.execute(latents=latents(1, 16, 3, 7, 9), **STEPS)[0]
    assert (embeds.geometry.width, embeds.geometry.height) == (64, 48)
    assert "width 72 is not a multiple of 16" in caplog.text


def test_embeds_hold_the_clip_its_steps_and_the_reference(control):
    clip, picture = latents(), latents(1, 16, 1, 6, 8)
    embeds = control.WanVideoControlEmbeds.execute(latents=clip, fun_ref_image=picture, **STEPS)[0]
    assert embeds.inputs[CONTROL].latent.values is clip["samples"]
    assert embeds.inputs[CONTROL].steps == StepRange(0.1, 0.7)
    assert embeds.inputs[FUN_REFERENCE].latent is picture["samples"]


def test_a_picture_without_frames_is_a_reference(control):
    embeds = control.WanVideoControlEmbeds.execute(
        latents=latents(), fun_ref_image=latents(1, 16, 6, 8), **STEPS
    )[0]
    assert embeds.inputs[FUN_REFERENCE].latent.shape == (1, 16, 1, 6, 8)


@pytest.mark.parametrize("shape", [(2, 16, 3, 6, 8), (1, 4, 3, 6, 8), (16, 6, 8), (1, 16, 0, 6, 8)])
def test_what_is_no_latent_of_one_video_is_refused_with_its_shape(control, shape):
    with pytest.raises(Exception, match=r"^WanVideo Control Embeds: latents: expected the latent"):
        control.WanVideoControlEmbeds.execute(latents=latents(*shape), **STEPS)


def test_other_embeds_keep_their_size_and_their_inputs(control, sockets):
    known = image()
    embeds = control.WanVideoAddControlEmbeds.execute(
        embeds=embeds_of(sockets, image=known), latents=latents(), **STEPS
    )[0]
    assert embeds.geometry.frames == 17
    assert embeds.inputs[IMAGE] is known
    assert embeds.inputs[CONTROL].steps == StepRange(0.1, 0.7)


def test_a_reference_alone_can_be_added(control, sockets):
    embeds = control.WanVideoAddControlEmbeds.execute(
        embeds=embeds_of(sockets), fun_ref_image=latents(1, 16, 1, 6, 8), **STEPS
    )[0]
    assert set(embeds.inputs) == {FUN_REFERENCE}


def test_nothing_connected_changes_nothing(control, sockets):
    before = embeds_of(sockets, image=image())
    assert control.WanVideoAddControlEmbeds.execute(embeds=before, **STEPS)[0] is before


def test_what_are_no_embeds_is_refused(control):
    with pytest.raises(Exception, match=r"^WanVideo Add Control Embeds: embeds: expected image embeds"):
        control.WanVideoAddControlEmbeds.execute(embeds="x", **STEPS)


@pytest.mark.parametrize("fit", ["hold", "loop", "", None])
def test_a_short_clip_leaves_the_length_of_the_video(control, sockets, fit):
    embeds = control.WanVideoAddControlEmbeds.execute(
        embeds=embeds_of(sockets), latents=latents(), length_fit=fit, **STEPS
    )[0]
    assert embeds.geometry.frames == 17
    assert embeds.inputs[CONTROL].fit == (fit or "hold")


def test_trim_cuts_the_video_and_what_it_is_conditioned_on(control, sockets, caplog):
    known = image()
    embeds = control.WanVideoAddControlEmbeds.execute(
        embeds=embeds_of(sockets, image=known), latents=latents(), length_fit="trim", **STEPS
    )[0]
    assert embeds.geometry.frames == 9
    assert torch.equal(embeds.inputs[IMAGE].latent.values, known.latent.values[:, :, :3])
    assert "the video is cut from 17 to 9 frames" in caplog.text


def test_trim_keeps_an_image_at_the_end(control, sockets):
    known = image(6, is_last_alone=True)
    embeds = control.WanVideoAddControlEmbeds.execute(
        embeds=embeds_of(sockets, image=known), latents=latents(), length_fit="trim", **STEPS
    )[0]
    assert torch.equal(embeds.inputs[IMAGE].latent.values, known.latent.values[:, :, [0, 1, 2, 5]])


def test_trim_with_a_longer_clip_leaves_the_video(control, sockets):
    embeds = control.WanVideoAddControlEmbeds.execute(
        embeds=embeds_of(sockets), latents=latents(1, 16, 9, 6, 8), length_fit="trim", **STEPS
    )[0]
    assert embeds.geometry.frames == 17


def test_trim_refuses_what_it_cannot_cut(control, sockets):
    with pytest.raises(Exception, match=r"length_fit: trim cannot cut the input for image; .* to 9"):
        control.WanVideoAddControlEmbeds.execute(
            embeds=embeds_of(sockets, image=image(2)), latents=latents(), length_fit="trim", **STEPS
        )


def test_control_embeds_that_are_joined_to_others_trim_them_too(control, node_module, caplog):
    clip = control.WanVideoControlEmbeds.execute(latents=latents(), length_fit="trim", **STEPS)[0]
    joined = node_module("embeds").WanVideoEmptyEmbeds.execute(
        width=64, height=48, num_frames=17, control_embeds=clip
    )[0]
    assert joined.geometry.frames == 9
    assert "the video is cut from 17 to 9 frames" in caplog.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [("loop", True), ("", True), (None, True), ("x", "length_fit: 'x' is not one of hold, loop, trim")],
)
def test_the_empty_value_of_older_graphs_is_accepted(control, value, expected):
    assert control.WanVideoAddControlEmbeds.validate_inputs(value) == expected


def test_control_embeds_can_be_looked_at(control, node_module):
    embeds = control.WanVideoControlEmbeds.execute(latents=latents(), **STEPS)[0]
    latent, mask = node_module("embeds").WanVideoPreviewEmbeds.execute(embeds=embeds)[:2]
    assert latent["samples"] is embeds.inputs[CONTROL].latent.values
    assert mask.shape == (3, 6, 8)
