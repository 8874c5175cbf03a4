"""VAE nodes, with this pack's VAE and with ComfyUI's."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill, specs, vae22
from comfyui_wanvideo.wanvideo.conditioning.decode_plan import DecodePlan
from comfyui_wanvideo.wanvideo.vae import latent_space_for
from comfyui_wanvideo.wanvideo.vae.pixels import normalise_pixels
from safetensors.torch import load_file, save_file

TILES = {"tile_x": 32, "tile_y": 32, "tile_stride_x": 16, "tile_stride_y": 16}
RELATIVE_ERROR = 1e-5


@pytest.fixture
def nodes(node_module):
    return node_module("vae")


@pytest.fixture
def ours(nodes, vae_file):
    return nodes.WanVideoVAELoader.execute(model_name=vae_file.name, precision="fp32")[0]


@pytest.fixture
def cores(nodes, vae_file):
    """The same weights in ComfyUI's own VAE."""
    import comfy.sd

    return comfy.sd.VAE(sd=load_file(vae_file), dtype=torch.float32)


def encode(nodes, vae, images, **more):
    return nodes.WanVideoEncode.execute(
        vae=vae, image=images, enable_vae_tiling=more.pop("tiling", False), **TILES, **more
    )[0]


def decode(nodes, vae, latent, **more):
    return nodes.WanVideoDecode.execute(
        vae=vae, samples={"samples": latent}, enable_vae_tiling=more.pop("tiling", False), **TILES, **more
    )[0]


def pictures(frames=5, height=32, width=48):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(0))


def latents(frames=2, height=4, width=6, channels=16):
    return torch.randn(1, channels, frames, height, width, generator=torch.Generator().manual_seed(0))


def difference(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_encoding_equals_comfyuis_vae_encode(nodes, ours, cores):
    expected = cores.encode(pictures())
    found = encode(nodes, ours, pictures())["samples"]
    assert found.shape == (1, 16, 2, 4, 6)
    assert difference(found, expected) < RELATIVE_ERROR


def test_decoding_equals_comfyuis_vae_decode(nodes, ours, cores):
    expected = cores.decode(latents()).flatten(0, 1)
    found = decode(nodes, ours, latents())
    assert found.shape == (5, 32, 48, 3)
    assert difference(found, expected) < RELATIVE_ERROR


def test_comfyuis_vae_encodes_through_our_node(nodes, ours, cores):
    expected = encode(nodes, ours, pictures())["samples"]
    assert difference(encode(nodes, cores, pictures())["samples"], expected) < RELATIVE_ERROR


def test_comfyuis_vae_decodes_through_our_node(nodes, ours, cores):
    expected = decode(nodes, ours, latents())
    assert difference(decode(nodes, cores, latents()), expected) < RELATIVE_ERROR


@pytest.mark.parametrize("normalization", ["minmax", "none"])
def test_normalization_of_comfyuis_vae_works_on_what_it_did_not_cut_off(nodes, ours, cores, normalization):
    kept = decode(nodes, ours, latents(), normalization="none").clamp(-1.0, 1.0)
    found = decode(nodes, cores, latents(), normalization=normalization)
    assert difference(found, normalise_pixels(kept, normalization)) < RELATIVE_ERROR


@pytest.mark.parametrize("vae", ["ours", "cores"])
def test_tiles_cover_the_whole_video(nodes, vae, request):
    vae = request.getfixturevalue(vae)
    assert decode(nodes, vae, latents(height=6, width=8), tiling=True).shape == (5, 48, 64, 3)
    found = encode(nodes, vae, pictures(height=48, width=64), tiling=True)["samples"]
    assert found.shape == (1, 16, 2, 6, 8)


def test_decoded_pictures_lie_between_black_and_white(nodes, ours):
    images = decode(nodes, ours, latents() * 10)
    assert images.min() >= 0.0
    assert images.max() <= 1.0


def test_minmax_reaches_black_and_white(nodes, ours):
    images = decode(nodes, ours, latents() * 0.1, normalization="minmax")
    assert images.min() == 0.0
    assert images.max() == 1.0


def test_no_normalization_keeps_the_vaes_range(nodes, ours):
    raw = decode(nodes, ours, latents(), normalization="none")
    expected = decode(nodes, ours, latents())
    assert torch.equal(raw.clamp(-1, 1) * 0.5 + 0.5, expected)


def test_decoding_does_not_change_its_input(nodes, ours):
    latent = latents()
    decode(nodes, ours, latent)
    assert torch.equal(latent, latents())


def test_a_latent_of_another_vae_is_refused_with_both_numbers(nodes, ours):
    with pytest.raises(
        Exception, match=r"^WanVideo Decode: samples: .*48 channels.*vae makes 16.*Wan 2.2 VAE"
    ):
        decode(nodes, ours, latents(channels=48))


def test_a_picture_latent_is_refused(nodes, ours):
    with pytest.raises(Exception, match="expected a video latent"):
        decode(nodes, ours, torch.zeros(1, 16, 8, 8))


@pytest.mark.parametrize("vae", [None, "a string"])
def test_something_else_than_a_vae_is_refused(nodes, vae):
    with pytest.raises(Exception, match=r"^WanVideo Decode: vae: "):
        decode(nodes, vae, latents())


def test_an_image_vae_of_comfyui_is_refused(nodes, cores, monkeypatch):
    monkeypatch.setattr(cores, "latent_dim", 2)
    with pytest.raises(Exception, match="not for videos"):
        decode(nodes, cores, latents())


def test_tiles_with_gaps_are_refused(nodes, ours):
    with pytest.raises(Exception, match="tile_stride_x"):
        nodes.WanVideoDecode.execute(
            vae=ours, samples={"samples": latents()}, enable_vae_tiling=True, **{**TILES, "tile_stride_x": 40}
        )


def test_frames_beyond_4n_1_are_dropped_and_it_is_said(nodes, ours, caplog):
    found = encode(nodes, ours, pictures(frames=8))["samples"]
    assert torch.equal(found, encode(nodes, ours, pictures(frames=8)[:5])["samples"])
    assert "8 frames are not 4n+1: the last 3 dropped, 5 kept" in caplog.text


def test_sizes_are_resized_to_the_multiple_and_it_is_said(nodes, ours, caplog):
    found = encode(nodes, ours, pictures(height=38, width=58))["samples"]
    assert found.shape == (1, 16, 2, 4, 6)
    assert "width 58 x height 38 is not a multiple of 16: resized to 48x32" in caplog.text


def test_a_fitting_video_is_encoded_without_a_word(nodes, ours, caplog):
    encode(nodes, ours, pictures())
    assert caplog.text == ""


def test_latent_strength_scales_what_the_model_sees(nodes, ours):
    space = latent_space_for(16)
    full = space.normalise(encode(nodes, ours, pictures())["samples"])
    half = space.normalise(encode(nodes, ours, pictures(), latent_strength=0.5)["samples"])
    assert difference(half, full * 0.5) < RELATIVE_ERROR


def test_noise_augmentation_changes_the_latent_the_same_way_each_time(nodes, ours):
    plain = encode(nodes, ours, pictures())["samples"]
    noisy = encode(nodes, ours, pictures(), noise_aug_strength=0.3)["samples"]
    assert difference(noisy, plain) > 1e-3
    assert torch.equal(noisy, encode(nodes, ours, pictures(), noise_aug_strength=0.3)["samples"])


def test_a_mask_travels_as_noise_mask(nodes, ours):
    mask = torch.ones(5, 32, 48)
    assert encode(nodes, ours, pictures(), mask=mask)["noise_mask"] is mask
    assert "noise_mask" not in encode(nodes, ours, pictures())


def test_batch_encodes_each_picture_on_its_own(nodes, ours):
    images = pictures(frames=3)
    batch = nodes.WanVideoEncodeLatentBatch.execute(vae=ours, images=images, enable_vae_tiling=False, **TILES)
    expected = torch.cat([encode(nodes, ours, image)["samples"] for image in images.split(1)])
    assert torch.equal(batch[0]["samples"], expected)


def test_a_used_vae_is_in_comfyuis_list(nodes, ours):
    import comfy.model_management as management

    decode(nodes, ours, latents())
    assert ours.managed in [entry.model for entry in management.current_loaded_models]


def test_an_interrupt_stops_decoding(nodes, ours):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        decode(nodes, ours, latents())


def test_compile_args_are_refused_by_name(nodes, vae_file):
    with pytest.raises(Exception, match=r"^WanVideo VAE Loader: compile_args: "):
        nodes.WanVideoVAELoader.execute(model_name=vae_file.name, compile_args={})


def test_another_kind_of_file_is_found_out_before_anything_runs(nodes, model_folder):
    save_file({"blocks.0.self_attn.q.weight": torch.zeros(2, 2)}, model_folder / "dit.safetensors")
    answer = nodes.WanVideoVAELoader.validate_inputs(model_name="dit.safetensors")
    assert answer.startswith("dit.safetensors: ")
    assert "VAE" in answer


def test_a_vae_file_passes_the_check(nodes, vae_file):
    assert nodes.WanVideoVAELoader.validate_inputs(model_name=f"moved\\{vae_file.name.upper()}") is True


def test_bf16_is_close_to_fp32(nodes, ours, vae_file):
    low = nodes.WanVideoVAELoader.execute(model_name=vae_file.name, precision="bf16")[0]
    assert difference(decode(nodes, low, latents()), decode(nodes, ours, latents())) < 2e-2


def planned(latent, **plan):
    return {"samples": latent, "decode_plan": DecodePlan(**plan)}


def decoded(nodes, vae, samples):
    return nodes.WanVideoDecode.execute(vae=vae, samples=samples, enable_vae_tiling=False, **TILES)[0]


def test_leading_frames_are_not_decoded(nodes, ours):
    latent = latents(frames=4)
    found = decoded(nodes, ours, planned(latent, leading_frames=2, latent_frames=4))
    assert torch.equal(found, decode(nodes, ours, latent[:, :, 2:]))


def test_an_end_image_of_its_own_is_left_out_and_does_not_reach_the_video(nodes, ours):
    latent = latents(frames=4)
    found = decoded(nodes, ours, planned(latent, is_last_alone=True, latent_frames=4))
    assert found.shape == (9, 32, 48, 3)
    assert torch.equal(found, decode(nodes, ours, latent[:, :, :-1]))


def test_a_plan_for_another_number_of_frames_is_ignored(nodes, ours):
    latent = latents(frames=3)
    found = decoded(nodes, ours, planned(latent, leading_frames=1, is_last_alone=True, latent_frames=4))
    assert torch.equal(found, decode(nodes, ours, latent))


def test_a_plan_that_knows_no_length_holds_for_any(nodes, ours):
    latent = latents(frames=3)
    found = decoded(nodes, ours, planned(latent, leading_frames=1))
    assert torch.equal(found, decode(nodes, ours, latent[:, :, 1:]))


def test_the_mark_of_the_pack_before_this_one_drops_the_first_frame(nodes, ours):
    latent = latents(frames=3)
    found = decoded(nodes, ours, {"samples": latent, "has_ref": True})
    assert torch.equal(found, decode(nodes, ours, latent[:, :, 1:]))


def test_our_plan_goes_before_that_mark(nodes, ours):
    latent = latents(frames=3)
    found = decoded(nodes, ours, {**planned(latent, latent_frames=3), "has_ref": True})
    assert torch.equal(found, decode(nodes, ours, latent))


def test_a_plan_that_leaves_nothing_is_an_error(nodes, ours):
    with pytest.raises(Exception, match="all 2 latent frames are references"):
        decoded(nodes, ours, planned(latents(), leading_frames=2))


@pytest.mark.parametrize("tiling", [False, True])
def test_pictures_come_back_from_the_wan22_vae_in_their_size(nodes, model_folder, tiling):
    path = model_folder / "tiny_vae_22.safetensors"
    save_file(fill.tensors(vae22.wan22_vae(vae22.VAE22Size()), file="vae22", seed=1), path)
    vae = nodes.WanVideoVAELoader.execute(model_name=path.name, precision="fp32")[0]
    latent = encode(nodes, vae, pictures(height=64, width=96), tiling=tiling)["samples"]
    assert latent.shape == (1, 48, 2, 4, 6)
    assert decode(nodes, vae, latent, tiling=tiling).shape == (5, 64, 96, 3)


@pytest.mark.parametrize(("channels", "stride"), [(16, 8), (48, 16)])
def test_tiles_are_as_large_as_asked_in_pixels_with_either_vae(nodes, model_folder, channels, stride):
    """The node hands pixels on: a tile of 128 pixels is 16 latents of one VAE, 8 of the other."""
    path = model_folder / "tiny.safetensors"
    shapes = specs.wan21_vae(specs.VAESize(base=8)) if channels == 16 else vae22.wan22_vae(vae22.VAE22Size())
    save_file(fill.tensors(shapes, file="vae", seed=1), path)
    vae = nodes.WanVideoVAELoader.execute(model_name=path.name, precision="fp32")[0]
    seen = []
    network = vae.vae.module
    render = network.render

    def recording(features, cache):
        seen.append(tuple(features.shape[-2:]))
        return render(features, cache)

    network.render = recording
    side = 256 // stride
    sizes = {"tile_x": 128, "tile_y": 192, "tile_stride_x": 64, "tile_stride_y": 128}
    nodes.WanVideoDecode.execute(
        vae=vae,
        samples={"samples": latents(frames=1, height=side, width=side, channels=channels)},
        enable_vae_tiling=True,
        **sizes,
    )
    # Two rows of tiles with an overlap of 64 cover 256 pixels with 160 each, which is within the 192.
    assert {(rows * stride, columns * stride) for rows, columns in seen} == {(160, 128)}
