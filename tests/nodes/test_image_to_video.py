"""Encoding what a video begins and ends with, in this pack's VAE and in ComfyUI's."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill, specs, vae22
from comfyui_wanvideo.wanvideo.conditioning.clip import ClipEmbeds
from comfyui_wanvideo.wanvideo.conditioning.conditioning import FamilyInput
from comfyui_wanvideo.wanvideo.vae import latent_space_for
from safetensors.torch import load_file, save_file

SIZE = {"width": 48, "height": 32, "num_frames": 9}
FACTORS = {"noise_aug_strength": 0.0, "start_latent_strength": 1.0, "end_latent_strength": 1.0}
RELATIVE_ERROR = 1e-5
NODE = "WanVideo ImageToVideo Encode"


@pytest.fixture
def nodes(node_module):
    return node_module("image_to_video")


@pytest.fixture
def vae(node_module, vae_file):
    return node_module("vae").WanVideoVAELoader.execute(model_name=vae_file.name, precision="fp32")[0]


@pytest.fixture
def cores(vae_file):
    """The same weights in ComfyUI's own VAE."""
    import comfy.sd

    return comfy.sd.VAE(sd=load_file(vae_file), dtype=torch.float32)


@pytest.fixture
def vae_22(node_module, model_folder):
    path = model_folder / "tiny_vae_22.safetensors"
    save_file(fill.tensors(vae22.wan22_vae(vae22.VAE22Size()), file="vae22", seed=1), path)
    return node_module("vae").WanVideoVAELoader.execute(model_name=path.name, precision="fp32")[0]


@pytest.fixture
def encode(nodes, vae):
    """Runs the node; returns its embeds."""

    def run(**inputs):
        values = {**SIZE, **FACTORS, "force_offload": True, "vae": vae, **inputs}
        return nodes.WanVideoImageToVideoEncode.execute(**values)[0]

    return run


def pictures(count: int = 1, height: int = 32, width: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def latents(frames: int, channels: int = 16, size: tuple[int, int] = (4, 6), seed: int = 1) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(1, channels, frames, *size, generator=generator)}


def difference(found, expected) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def clip(start=None, end=None, frames: int = 9) -> torch.Tensor:
    """A grey video with pictures at its ends."""
    video = torch.full((frames, 32, 48, 3), 0.5)
    if start is not None:
        video[: len(start)] = start
    if end is not None:
        video[-len(end) :] = end
    return video


def test_a_start_image_is_followed_by_grey(encode, cores):
    start = pictures()
    image = encode(start_image=start).inputs["image"]
    assert difference(image.latent.values, cores.encode(clip(start))) < RELATIVE_ERROR
    assert image.mask.values[0, :, :, 0, 0].T.tolist() == [[1] * 4, [0] * 4, [0] * 4]


def test_start_and_end_image_lie_in_the_video(encode, cores):
    start, end = pictures(), pictures(seed=1)
    image = encode(start_image=start, end_image=end).inputs["image"]
    assert difference(image.latent.values, cores.encode(clip(start, end))) < RELATIVE_ERROR
    assert image.mask.values[0, :, -1, 0, 0].tolist() == [0, 0, 0, 1]
    assert not image.is_last_alone


def test_an_end_image_of_its_own_is_encoded_alone_behind_the_video(encode, cores):
    start, end = pictures(), pictures(seed=1)
    embeds = encode(start_image=start, end_image=end, fun_or_fl2v_model=False)
    image = embeds.inputs["image"]
    expected = torch.cat([cores.encode(clip(start)), cores.encode(end)], dim=2)
    assert difference(image.latent.values, expected) < RELATIVE_ERROR
    assert image.mask.values[0, :, :, 0, 0].T.tolist() == [[1] * 4, [0] * 4, [0] * 4, [1] * 4]
    assert image.is_last_alone
    assert embeds.geometry.latent_frames == 3


@pytest.mark.parametrize("is_fun", [True, False])
def test_an_end_image_alone_always_lies_in_the_video(encode, cores, is_fun):
    end = pictures(seed=1)
    image = encode(end_image=end, fun_or_fl2v_model=is_fun).inputs["image"]
    assert difference(image.latent.values, cores.encode(clip(None, end))) < RELATIVE_ERROR
    assert not image.is_last_alone


def test_several_start_frames_are_all_known(encode, cores):
    start = pictures(5)
    image = encode(start_image=start).inputs["image"]
    assert difference(image.latent.values, cores.encode(clip(start))) < RELATIVE_ERROR
    assert image.mask.values[0, :, :, 0, 0].T.tolist() == [[1] * 4, [1] * 4, [0] * 4]


def test_without_pictures_all_is_grey_and_unknown(encode, cores):
    image = encode().inputs["image"]
    assert difference(image.latent.values, cores.encode(clip())) < RELATIVE_ERROR
    assert not image.mask.values.any()


def test_a_single_frame(encode, cores):
    start = pictures()
    image = encode(start_image=start, num_frames=1).inputs["image"]
    assert difference(image.latent.values, cores.encode(start)) < RELATIVE_ERROR
    assert image.mask.values.shape == (1, 4, 1, 4, 6)


def test_comfyuis_vae_encodes_through_the_node(encode, cores):
    start = pictures()
    ours = encode(start_image=start).inputs["image"].latent.values
    assert (
        difference(encode(start_image=start, vae=cores).inputs["image"].latent.values, ours) < RELATIVE_ERROR
    )


def test_pictures_of_another_size_are_stretched(encode, host):
    start = pictures(height=50, width=80)
    expected = encode(start_image=host.resize_images(start, 48, 32, crop=False)).inputs["image"]
    found = encode(start_image=start).inputs["image"]
    assert torch.equal(found.latent.values, expected.latent.values)


def test_an_alpha_channel_is_left_out(encode):
    start = pictures()
    with_alpha = torch.cat([start, torch.zeros(1, 32, 48, 1)], dim=-1)
    found = encode(start_image=with_alpha).inputs["image"]
    assert torch.equal(found.latent.values, encode(start_image=start).inputs["image"].latent.values)


def test_more_start_frames_than_the_video_has_are_cut_and_said(encode, caplog):
    found = encode(start_image=pictures(12)).inputs["image"]
    whole = encode(start_image=pictures(12)[:9]).inputs["image"]
    assert torch.equal(found.latent.values, whole.latent.values)
    assert f"{NODE}: start_image has 12 pictures: the first 9 are used" in caplog.text


@pytest.mark.parametrize(("name", "frame"), [("start_latent_strength", 0), ("end_latent_strength", 2)])
def test_strengths_are_factors_on_what_the_model_sees(encode, name, frame):
    ends = {"start_image": pictures(), "end_image": pictures(seed=1)}
    space = latent_space_for(16)
    whole = space.normalise(encode(**ends).inputs["image"].latent.values)
    found = space.normalise(encode(**ends, **{name: 0.5}).inputs["image"].latent.values)
    whole[:, :, frame] *= 0.5
    assert difference(found, whole) < RELATIVE_ERROR


def test_the_end_strength_acts_on_grey_as_well(encode):
    space = latent_space_for(16)
    whole = space.normalise(encode(start_image=pictures()).inputs["image"].latent.values)
    found = encode(start_image=pictures(), end_latent_strength=0.5).inputs["image"].latent.values
    whole[:, :, -1] *= 0.5
    assert difference(space.normalise(found), whole) < RELATIVE_ERROR


def test_noise_is_added_to_the_pictures_alone_and_is_the_same_every_time(encode, cores):
    start = pictures()
    first = encode(start_image=start, noise_aug_strength=0.2).inputs["image"].latent.values
    again = encode(start_image=start, noise_aug_strength=0.2).inputs["image"].latent.values
    assert torch.equal(first, again)
    assert difference(first, encode(start_image=start).inputs["image"].latent.values) > 1e-3
    assert torch.equal(
        encode(noise_aug_strength=0.2).inputs["image"].latent.values, encode().inputs["image"].latent.values
    )


def test_a_temporal_mask_replaces_that_of_the_pictures(encode):
    mask = torch.zeros(9, 32, 48)
    mask[4:, :16] = 1
    found = encode(start_image=pictures(), temporal_mask=mask).inputs["image"].mask.values[0]
    assert not found[:, 0].any()
    assert found[:, 1, 0, 0].tolist() == [0, 0, 0, 1]
    assert found[:, 2, 0, 0].tolist() == [1, 1, 1, 1]
    assert not found[:, :, 2:].any()


def test_a_pad_image_stands_where_nothing_is_known(encode, cores):
    start, pad = pictures(), pictures(seed=2)
    video = pad.repeat(9, 1, 1, 1)
    video[0] = start[0]
    found = encode(start_image=start, empty_frame_pad_image=pad).inputs["image"].latent.values
    assert difference(found, cores.encode(video)) < RELATIVE_ERROR


def test_empty_frames_are_exaggerated_about_the_first(encode):
    whole = encode(start_image=pictures()).inputs["image"].latent.values
    found = encode(start_image=pictures(), augment_empty_frames=0.5).inputs["image"].latent.values
    expected = whole[:, :, :1] + 1.5 * (whole - whole[:, :, :1])
    assert difference(found, expected) < RELATIVE_ERROR


def test_extra_latents_are_known_references_in_front(encode):
    extra = latents(2)
    image = encode(start_image=pictures(), extra_latents=extra).inputs["image"]
    plain = encode(start_image=pictures()).inputs["image"]
    assert torch.equal(image.latent.values[:, :, :2], extra["samples"])
    assert torch.equal(image.latent.values[:, :, 2:], plain.latent.values)
    assert (image.mask.values[:, :, :3] == 1).all()
    assert image.reference_frames == 2


def test_a_batch_of_extra_latents_comes_one_after_the_other(encode):
    extra = {"samples": torch.cat([latents(1)["samples"], latents(1, seed=2)["samples"]])}
    image = encode(start_image=pictures(), extra_latents=extra).inputs["image"]
    assert image.reference_frames == 2
    assert torch.equal(image.latent.values[0, :, 1], extra["samples"][1, :, 0])


def test_extra_latents_of_another_size_are_resized_and_said(encode, caplog):
    image = encode(start_image=pictures(), extra_latents=latents(1, size=(8, 8))).inputs["image"]
    assert image.latent.values.shape == (1, 16, 4, 4, 6)
    assert "extra_latents were made for 64x64: resized to 48x32" in caplog.text


def test_extra_latents_of_the_other_vae_are_refused(encode):
    with pytest.raises(Exception, match=rf"^{NODE}: extra_latents: .*48 channels"):
        encode(start_image=pictures(), extra_latents=latents(1, channels=48))


def test_tiles_encode_the_same_up_to_their_seams(encode):
    size = {"width": 128, "height": 96, "num_frames": 1, "start_image": pictures(height=96, width=128)}
    whole = encode(**size).inputs["image"].latent.values
    tiled = encode(**size, tiled_vae=True).inputs["image"].latent.values
    assert 0 < difference(tiled, whole) < 0.2


def test_an_impossible_size_is_rounded_and_said(encode, caplog):
    geometry = encode(width=72, height=72, num_frames=8, start_image=pictures()).geometry
    assert (geometry.width, geometry.height, geometry.frames) == (64, 64, 5)
    assert "width 72 is not a multiple of 16: rounded to 64" in caplog.text


def test_the_wan22_vae_gives_a_size_of_its_own_stride(encode, vae_22):
    embeds = encode(width=64, height=64, vae=vae_22, start_image=pictures())
    assert embeds.geometry.spatial_stride == 16
    assert embeds.inputs["image"].latent.values.shape == (1, 48, 3, 4, 4)


def test_no_vae_is_an_error_that_says_what_to_connect(encode):
    with pytest.raises(Exception, match=rf"^{NODE}: vae: no VAE connected; connect a WanVideo VAE Loader"):
        encode(vae=None, start_image=pictures())


def test_no_room_for_two_pictures_is_an_error(encode):
    with pytest.raises(Exception, match="end_image: a video of 1 frame"):
        encode(num_frames=1, start_image=pictures(), end_image=pictures())


def test_something_else_than_pictures_is_refused_by_name(encode):
    with pytest.raises(Exception, match="end_image: expected pictures"):
        encode(start_image=pictures(), end_image=torch.zeros(1, 32, 48))


def test_conditions_of_a_later_family_are_refused_by_name(encode):
    with pytest.raises(Exception, match="add_cond_latents: RealisDance is not available"):
        encode(add_cond_latents=object())


ROWS = torch.randn(1, 257, 1280, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "embeds",
    [
        ClipEmbeds(ROWS),
        {"clip_embeds": ROWS, "negative_clip_embeds": None},
        SimpleNamespace(penultimate_hidden_states=ROWS),
    ],
    ids=["ours", "dict", "core"],
)
def test_clip_rows_of_any_maker_become_an_input(encode, embeds):
    found = encode(start_image=pictures(), clip_embeds=embeds).inputs["clip"]
    assert torch.equal(found.rows, ROWS)
    assert found.negative is None


def test_rows_of_another_image_encoder_are_refused(encode):
    with pytest.raises(Exception, match=r"clip_embeds: .*1024 wide"):
        encode(clip_embeds=ClipEmbeds(torch.zeros(1, 257, 1024)))


def test_control_embeds_bring_their_inputs(encode):
    control = encode().with_input("control", FamilyInput())
    control = replace(control, inputs={"control": control.inputs["control"]})
    found = encode(start_image=pictures(), control_embeds=control)
    assert set(found.inputs) == {"image", "control"}


def test_control_embeds_of_another_length_are_said(encode, caplog):
    control = replace(encode(num_frames=5), inputs={"control": FamilyInput()})
    encode(start_image=pictures(), control_embeds=control)
    assert "control_embeds were made for 48x32, 5 frames; the video has 48x32, 9 frames" in caplog.text


@pytest.mark.parametrize("is_offloaded", [True, False])
def test_the_vae_leaves_its_device_when_asked(encode, node_module, monkeypatch, vae, is_offloaded):
    evicted = []
    monkeypatch.setattr(node_module("video_vae"), "evict", evicted.append)
    encode(start_image=pictures(), force_offload=is_offloaded)
    assert evicted == ([vae.managed] if is_offloaded else [])


@pytest.fixture
def sample(node_module, transformer_files, monkeypatch):
    """Samples with a model of these channels, up to where weights would move."""

    def moves(*_, **__):
        raise AssertionError("the run is planned, so weights move")

    monkeypatch.setattr(node_module("sampling_run"), "plan_run", moves)

    def run(channels, embeds):
        size = specs.DiTSize(
            width=128,
            feed_forward=256,
            layers=2,
            text_width=32,
            in_channels=channels[0],
            out_channels=channels[1],
        )
        save_file(fill.tensors(specs.dit(size), file="dit", seed=1), transformer_files / "model.safetensors")
        loader = node_module("model").WanVideoModelLoader
        values = {"base_precision": "fp32", "quantization": "disabled", "load_device": "offload_device"}
        model = loader.run("model.safetensors", **values).result[0]
        inputs = {"steps": 1, "cfg": 1.0, "shift": 5.0, "seed": 1, "riflex_freq_index": 0}
        node_module("sampler").WanVideoSampler.execute(
            model=model, image_embeds=embeds, scheduler="euler", force_offload=True, **inputs
        )

    return run


@pytest.mark.parametrize("channels", [(48, 48), (100, 48)])
def test_embeds_of_the_wan21_vae_are_refused_by_a_5b_model_before_weights_move(sample, encode, channels):
    embeds = encode(width=64, height=64, start_image=pictures())
    with pytest.raises(Exception, match=r"^WanVideo Sampler: image_embeds: .*16 channels.*Wan 2.2 VAE"):
        sample(channels, embeds)


def test_embeds_of_the_wan22_vae_are_refused_by_a_14b_model_before_weights_move(sample, encode, vae_22):
    embeds = encode(width=64, height=64, vae=vae_22, start_image=pictures())
    with pytest.raises(Exception, match=r"^WanVideo Sampler: image_embeds: .*48 channels.*Wan 2.1 VAE"):
        sample((36, 16), embeds)


def test_embeds_of_the_right_vae_are_not_refused(sample, encode):
    with pytest.raises(AssertionError, match="weights move"):
        sample((36, 16), encode(width=64, height=64, start_image=pictures()))
