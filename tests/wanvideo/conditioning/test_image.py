"""What is known of a video: fitted to a run, as channels and as clean frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.channel_parts import MaskAndLatentChannels
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.decode_plan import DecodePlan
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.image import IMAGE, ImageInput
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.sampling.edits import CleanFrames
from comfyui_wanvideo.wanvideo.sampling.solver import Step
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

STEP = Step(0, 2, 0, 2, 1.0, 0.5, 1000.0, 500.0, 2, 2)

FRAMES, ROWS, COLUMNS = 3, 4, 6


def setup_of(channels: tuple[int, int] = (36, 16), **sizes) -> RunSetup:
    stride = 16 if channels[1] == 48 else 8
    config = WanConfig(256, 512, 2, 2, *channels)
    geometry = VideoGeometry(COLUMNS * stride, ROWS * stride, 4 * FRAMES - 3, stride)
    return RunSetup(config, geometry, latent_space_for(channels[1]), **sizes)


def image(channels: int = 16, frames: int = FRAMES, known: tuple[int, ...] = (0,), **more) -> ImageInput:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 4, frames, ROWS, COLUMNS)
    mask[:, :, list(known)] = 1
    return ImageInput(
        Timed(torch.randn(1, channels, frames, ROWS, COLUMNS, generator=generator)), Timed(mask), **more
    )


def test_channels_are_the_mask_and_then_the_normalised_latent():
    given, noise = image(), torch.zeros(1, 16, FRAMES, ROWS, COLUMNS)
    channels = MaskAndLatentChannels(16).channels(given.prepared(setup_of()), noise)
    assert channels.shape == (1, 20, FRAMES, ROWS, COLUMNS)
    assert torch.equal(channels[:, :4], given.mask.values)
    assert torch.equal(channels[:, 4:], latent_space_for(16).normalise(given.latent.values))


def test_without_an_image_the_channels_are_zeros():
    assert not MaskAndLatentChannels(48).channels(None, torch.ones(2, 48, FRAMES, ROWS, COLUMNS)).any()


def test_nothing_is_known_of_leading_frames_of_others():
    prepared = image().prepared(setup_of(leading_frames=2))
    assert prepared.latent.values.shape[2] == FRAMES + 2
    assert not prepared.latent.values[:, :, :2].any()
    assert not prepared.mask.values[:, :, :2].any()
    assert prepared.is_first is not None
    assert prepared.is_first.values.flatten().tolist() == [0, 0, 1, 0, 0]


def test_its_own_references_lie_right_before_the_video():
    given = image(frames=FRAMES + 1, known=(0, 1), reference_frames=1)
    prepared = given.prepared(setup_of(leading_frames=2))
    expected = latent_space_for(16).normalise(given.latent.values)
    assert not prepared.latent.values[:, :, 0].any()
    assert torch.equal(prepared.latent.values[:, :, 1:], expected)


def test_references_are_sampled_with_the_video_and_not_decoded():
    given = image(frames=FRAMES + 2, reference_frames=2)
    assert given.leading_frames == 2
    assert given.decode_plan() == DecodePlan(leading_frames=2)
    given.check(setup_of(leading_frames=2))


def test_an_end_image_of_its_own_is_one_more_frame():
    given = image(frames=FRAMES + 1, is_last_alone=True)
    assert given.trailing_frames == 1
    assert given.decode_plan() == DecodePlan(is_last_alone=True)
    given.check(setup_of(trailing_frames=1))
    prepared = given.prepared(setup_of(trailing_frames=1))
    assert prepared.latent.values.shape[2] == FRAMES + 1


def test_another_length_is_refused_with_both():
    with pytest.raises(InputError, match="encoded for 5 latent frames, this video has 3"):
        image(frames=5).check(setup_of())


def test_a_latent_of_the_other_vae_is_refused_by_name():
    with pytest.raises(InputError, match=r"image_embeds: .*48 channels.*Wan 2.2 VAE.*Wan 2.1 VAE"):
        image(48).check(setup_of())


def test_another_picture_size_is_resized_and_said(caplog):
    setup = setup_of()
    larger = replace(setup, geometry=replace(setup.geometry, width=96))
    prepared = image().prepared(larger)
    assert prepared.latent.values.shape == (1, 16, FRAMES, ROWS, 12)
    assert prepared.mask.values.shape == (1, 4, FRAMES, ROWS, 12)
    assert "resized" in caplog.text


def test_models_of_the_21_vae_keep_no_frame_clean():
    prepared = image(known=(0, 2)).prepared(setup_of())
    assert prepared.clean_frames == ()
    assert prepared.edits() == ()


@pytest.mark.parametrize(("channels", "clean"), [((48, 48), (0, 2)), ((100, 48), (0,)), ((148, 48), (0,))])
def test_5b_models_keep_known_frames_clean_and_those_with_channels_the_first(channels, clean):
    assert image(48, known=(0, 2)).prepared(setup_of(channels)).clean_frames == clean


def test_leading_frames_move_the_clean_ones():
    setup = setup_of((48, 48), leading_frames=1)
    assert image(48, known=(0, 2)).prepared(setup).clean_frames == (1, 3)


def test_a_frame_that_is_known_in_part_is_not_kept_clean():
    given = image(48)
    given.mask.values[:, :, 0, 0, 0] = 0.5
    assert given.prepared(setup_of((100, 48))).clean_frames == ()


def test_clean_frames_are_at_timestep_0_and_kept_as_given():
    prepared = image(48).prepared(setup_of((48, 48)))
    conditioning = Conditioning(setup_of((48, 48)).geometry, inputs={IMAGE: prepared})
    assert conditioning.frame_timesteps(700.0) == (0.0, 700.0, 700.0)
    (edit,) = prepared.edits()
    assert isinstance(edit, CleanFrames)
    shown = edit.model_input(torch.zeros(1, 48, FRAMES, ROWS, COLUMNS), STEP)
    assert torch.equal(shown[:, :, 0], prepared.latent.values[:, :, 0])
    assert not shown[:, :, 1:].any()


def test_a_window_keeps_the_clean_frames_in_it_at_their_places():
    prepared = image(48, known=(0, 2)).prepared(setup_of((48, 48)))
    window = prepared.window([1, 2])
    assert window.clean_frames == (1,)
    assert torch.equal(window.latent.values, prepared.latent.values[:, :, 1:])


def test_a_window_of_all_frames_is_the_whole():
    prepared = image(48).prepared(setup_of((48, 48)))
    window = prepared.window(range(FRAMES))
    assert window.clean_frames == prepared.clean_frames
    assert torch.equal(window.mask.values, prepared.mask.values)


def half_known() -> ImageInput:
    """As an end image makes the last latent frame: only its last pixel frame is known."""
    given = image(48, known=())
    given.mask.values[:, 3, -1] = 1
    return given


def test_an_end_image_alone_is_refused_where_there_are_no_channels_for_it():
    with pytest.raises(InputError, match="WanVideo Add Extra Latent at latent_index -1"):
        half_known().check(setup_of((48, 48)))


def test_what_is_left_out_for_want_of_channels_is_said(caplog):
    given = half_known()
    given.mask.values[:, :, 0] = 1
    given.prepared(setup_of((48, 48)))
    assert "only latent frames [0] are used" in caplog.text


def test_an_input_without_any_picture_is_no_error():
    image(48, known=()).check(setup_of((48, 48)))
    assert image(48, known=()).prepared(setup_of((48, 48))).frame_timesteps(500.0) == {}


def test_the_preview_shows_what_the_model_paints():
    latent, mask = image().preview()
    assert latent.shape == (1, 16, FRAMES, ROWS, COLUMNS)
    assert mask[:, 0, 0].tolist() == [0, 1, 1]
