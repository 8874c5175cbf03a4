"""Both Wan VAEs against diffusers and ComfyUI, and what follows from being causal."""

import copy

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.vae import Tiling, load_vae
from comfyui_wanvideo.wanvideo.vae.cache import FeatureCache
from comfyui_wanvideo.wanvideo.vae.video_vae import MEMORY_RESERVE
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2e-2


def comfyui_network(tiny):
    from comfy.ldm.wan import vae as wan21
    from comfy.ldm.wan import vae2_2 as wan22

    options = {
        "dim": 8,
        "z_dim": tiny.latent_channels,
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "temperal_downsample": [False, True, True],
    }
    network = wan21.WanVAE(**options) if tiny.version == "2.1" else wan22.WanVAE(**options, dec_dim=8)
    network.load_state_dict(tiny.official_weights, strict=True)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("latent_frames", [1, 2, 4])
def test_decode_agrees_with_diffusers(tiny, error, latent_frames):
    latent = tiny.latent(latent_frames)
    reference = tiny.twin.decode(latent).sample
    assert reference.abs().max() < 1  # nothing was clamped
    assert error(tiny.load().decode(latent, device="cpu"), reference) < FP32_TOLERANCE


@pytest.mark.parametrize("frames", [1, 5, 13])
def test_encode_agrees_with_diffusers(tiny, error, frames):
    pixels = tiny.pixels(frames)
    reference = tiny.twin.encode(pixels).latent_dist.mode()
    assert error(tiny.load().encode(pixels, device="cpu"), reference) < FP32_TOLERANCE


def test_diffusers_file_gives_what_the_official_file_gives(tiny):
    latent = tiny.latent(2)
    vae = load_vae(Checkpoint.open(tiny.diffusers_file), dtype=torch.float32)
    assert torch.equal(vae.decode(latent, device="cpu"), tiny.load().decode(latent, device="cpu"))


@pytest.mark.parametrize("latent_frames", [1, 2, 5])
def test_decode_agrees_with_comfyui(tiny, error, comfyui_path, latent_frames):
    latent = tiny.latent(latent_frames)
    reference = comfyui_network(tiny).decode(latent)
    assert error(tiny.load().decode(latent, device="cpu"), reference) < FP32_TOLERANCE


@pytest.mark.parametrize("frames", [1, 9])
def test_encode_agrees_with_comfyui(tiny, error, comfyui_path, frames):
    pixels = tiny.pixels(frames)
    reference = comfyui_network(tiny).encode(pixels)
    assert error(tiny.load().encode(pixels, device="cpu"), reference) < FP32_TOLERANCE


def test_bf16_decode_is_as_close_to_fp32_as_that_of_diffusers(tiny, l2_error):
    latent = tiny.latent(3)
    exact = tiny.twin.decode(latent).sample
    theirs = l2_error(copy.deepcopy(tiny.twin).bfloat16().decode(latent.bfloat16()).sample, exact)
    ours = l2_error(tiny.load(dtype=torch.bfloat16).decode(latent, device="cpu"), exact)
    assert ours < BF16_TOLERANCE
    assert ours < 1.1 * theirs


def test_bf16_encode_is_as_close_to_fp32_as_that_of_diffusers(tiny, l2_error):
    pixels = tiny.pixels(5)
    exact = tiny.twin.encode(pixels).latent_dist.mode()
    twin = copy.deepcopy(tiny.twin).bfloat16()
    theirs = l2_error(twin.encode(pixels.bfloat16()).latent_dist.mode(), exact)
    ours = l2_error(tiny.load(dtype=torch.bfloat16).encode(pixels, device="cpu"), exact)
    assert ours < BF16_TOLERANCE
    assert ours < 1.1 * theirs


def test_results_are_fp32_on_the_cpu_whatever_the_vae_computes_in(tiny):
    vae = tiny.load(dtype=torch.bfloat16)
    for result in (vae.decode(tiny.latent(1), device="cpu"), vae.encode(tiny.pixels(1), device="cpu")):
        assert (result.dtype, result.device.type) == (torch.float32, "cpu")


def test_widths_come_from_the_file(make_vae, error):
    pruned = make_vae("2.1", base_dim=4, decoder_base_dim=12)
    latent, pixels = pruned.latent(2), pruned.pixels(5)
    vae = pruned.load()
    assert error(vae.decode(latent, device="cpu"), pruned.twin.decode(latent).sample) < FP32_TOLERANCE
    reference = pruned.twin.encode(pixels).latent_dist.mode()
    assert error(vae.encode(pixels, device="cpu"), reference) < FP32_TOLERANCE


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 6])
def test_t_latents_make_4t_minus_3_frames(tiny, latent_frames):
    pixels = tiny.load().decode(tiny.latent(latent_frames), device="cpu")
    assert pixels.shape == (1, 3, 4 * latent_frames - 3, 4 * tiny.stride, 5 * tiny.stride)


def test_a_picture_is_encoded_as_the_first_frame_of_a_video(tiny):
    vae, pixels = tiny.load(), tiny.pixels(9)
    picture = vae.encode(pixels[:, :, :1], device="cpu")
    assert torch.equal(picture, vae.encode(pixels, device="cpu")[:, :, :1])


def test_latents_do_not_depend_on_later_frames(tiny):
    vae, pixels = tiny.load(), tiny.pixels(13)
    assert torch.equal(vae.encode(pixels[:, :, :9], device="cpu"), vae.encode(pixels, device="cpu")[:, :, :3])


def test_first_frame_depends_on_the_first_latent_only(tiny):
    vae, latent = tiny.load(), tiny.latent(3)
    other = tiny.latent(3, seed=5)
    other[:, :, 0] = latent[:, :, 0]
    first, first_of_other = (vae.decode(z, device="cpu")[:, :, 0] for z in (latent, other))
    assert torch.equal(first, first_of_other)


def test_frames_do_not_depend_on_later_latents(tiny):
    vae, latent = tiny.load(), tiny.latent(4)
    assert torch.equal(vae.decode(latent[:, :, :2], device="cpu"), vae.decode(latent, device="cpu")[:, :, :5])


def test_a_batch_gives_what_its_clips_give_alone(tiny):
    vae, clips = tiny.load(), [tiny.latent(2, seed=seed) for seed in (1, 2)]
    together = vae.decode(torch.cat(clips), device="cpu")
    assert torch.equal(together, torch.cat([vae.decode(clip, device="cpu") for clip in clips]))


def test_a_second_run_gives_the_same(tiny):
    vae, latent = tiny.load(), tiny.latent(2)
    assert torch.equal(vae.decode(latent, device="cpu"), vae.decode(latent, device="cpu"))


def test_cpu_cache_changes_nothing(tiny):
    plain, cached = tiny.load(), tiny.load(use_cpu_cache=True)
    latent, pixels = tiny.latent(4), tiny.pixels(9)
    assert torch.equal(plain.decode(latent, device="cpu"), cached.decode(latent, device="cpu"))
    assert torch.equal(plain.encode(pixels, device="cpu"), cached.encode(pixels, device="cpu"))


def test_inputs_are_left_as_they_are(tiny):
    vae, latent, pixels = tiny.load(), tiny.latent(2), tiny.pixels(5)
    before = latent.clone(), pixels.clone()
    vae.decode(latent, device="cpu")
    vae.encode(pixels, device="cpu")
    assert torch.equal(latent, before[0])
    assert torch.equal(pixels, before[1])


def test_an_exception_from_check_ends_the_run_and_leaves_the_vae_usable(tiny):
    class Interrupted(BaseException):
        pass

    vae, latent = tiny.load(), tiny.latent(3)
    calls = []

    def stop_at_the_second():
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted

    expected = vae.decode(latent, device="cpu")
    with pytest.raises(Interrupted):
        vae.decode(latent, device="cpu", check=stop_at_the_second)
    assert len(calls) == 2
    assert torch.equal(vae.decode(latent, device="cpu"), expected)


@pytest.mark.parametrize("tiling", [None, Tiling(64, 64, 48, 48)])
def test_check_is_called_as_often_as_steps_says(tiny, tiling):
    vae, latent, pixels = tiny.load(), tiny.latent(3, rows=6, columns=9), tiny.pixels(9, rows=6, columns=9)
    calls = []
    vae.decode(latent, device="cpu", tiling=tiling, check=lambda: calls.append("decode"))
    vae.encode(pixels, device="cpu", tiling=tiling, check=lambda: calls.append("encode"))
    steps = vae.steps(latent.shape, tiling)
    assert (calls.count("decode"), calls.count("encode")) == (steps, steps)


def test_the_memory_estimate_is_near_the_tensors_that_are_held(tiny):
    vae, latent = tiny.load(), tiny.latent(3, rows=12, columns=12)
    cache_bytes = []

    def watch(self, layer, frames, keep=FeatureCache.keep):
        keep(self, layer, frames)
        cache_bytes.append(self.byte_count())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureCache, "keep", watch)
        vae.decode(latent, device="cpu")
    estimate = vae.decode_bytes(latent.shape)
    with_cpu_cache = tiny.load(use_cpu_cache=True).decode_bytes(latent.shape)
    assert max(cache_bytes) == pytest.approx((estimate - with_cpu_cache) / MEMORY_RESERVE, rel=0.1)


@pytest.mark.parametrize(("frames", "usable"), [(8, 5), (4, 1), (2, 1)])
def test_frames_beyond_4n_plus_1_are_refused_with_the_number_to_use(tiny21, frames, usable):
    with pytest.raises(InputError, match=f"{frames} frames are not 4n\\+1.*use {usable}$"):
        tiny21.load().encode(torch.zeros(1, 3, frames, 16, 16), device="cpu")


@pytest.mark.parametrize("side", ["width", "height"])
def test_sizes_off_the_stride_are_refused(tiny, side):
    height, width = (tiny.stride, tiny.stride + 4) if side == "width" else (tiny.stride + 4, tiny.stride)
    with pytest.raises(InputError, match=f"a {side} of {tiny.stride + 4} is not a multiple of {tiny.stride}"):
        tiny.load().encode(torch.zeros(1, 3, 1, height, width), device="cpu")


def test_latents_of_the_other_vae_are_refused_by_channel_count(tiny):
    other = 64 - tiny.latent_channels
    with pytest.raises(InputError, match=rf"vae: the Wan {tiny.version} VAE .* these have {other}"):
        tiny.load().decode(torch.zeros(1, other, 1, 2, 2), device="cpu")
