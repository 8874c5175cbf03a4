"""TAEHV against ComfyUI's, in both latent spaces."""

from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.vae import Tiling, latent_space_for, load_tiny_vae, load_vae
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from safetensors.torch import save_file

TOLERANCE = 1e-5


def layer_shapes(channels):
    """Key names and shapes of TAEHV for this many latent channels."""
    patch = 1 if channels == 16 else 2
    shapes = {"encoder.0.weight": (64, 3 * patch**2, 3, 3), "encoder.0.bias": (64,)}

    def memory_blocks(half, start, width):
        for number in range(start, start + 3):
            for index, in_channels in (("0", 2 * width), ("2", width), ("4", width)):
                shapes[f"{half}.{number}.conv.{index}.weight"] = (width, in_channels, 3, 3)
                shapes[f"{half}.{number}.conv.{index}.bias"] = (width,)

    for start, stride in ((2, 2), (7, 2), (12, 1)):
        shapes[f"encoder.{start}.conv.weight"] = (64, 64 * stride, 1, 1)
        shapes[f"encoder.{start + 1}.weight"] = (64, 64, 3, 3)
        memory_blocks("encoder", start + 2, 64)
    shapes |= {"encoder.17.weight": (channels, 64, 3, 3), "encoder.17.bias": (channels,)}
    shapes |= {"decoder.1.weight": (256, channels, 3, 3), "decoder.1.bias": (256,)}
    for start, stride, width, next_width in ((3, 1, 256, 128), (9, 2, 128, 64), (15, 2, 64, 64)):
        memory_blocks("decoder", start, width)
        shapes[f"decoder.{start + 4}.conv.weight"] = (width * stride, width, 1, 1)
        shapes[f"decoder.{start + 5}.weight"] = (next_width, width, 3, 3)
    return shapes | {"decoder.22.weight": (3 * patch**2, 64, 3, 3), "decoder.22.bias": (3 * patch**2,)}


class TaehvFile:
    """A TAEHV with random weights as a file, and ComfyUI's network with the same weights."""

    def __init__(self, channels: int, path: Path) -> None:
        torch.manual_seed(channels)
        self.channels, self.path = channels, path
        self.weights = {
            key: torch.randn(shape)
            * (0.1 if len(shape) == 1 else (torch.Size(shape[1:]).numel() / 2) ** -0.5)
            for key, shape in layer_shapes(channels).items()
        }
        save_file(self.weights, path)

    def load(self, **options):
        return load_tiny_vae(Checkpoint.open(self.path), dtype=torch.float32, **options)

    def comfyui_network(self):
        from comfy.taesd.taehv import TAEHV

        network = TAEHV(latent_channels=self.channels)
        network.load_state_dict(self.weights, strict=True)
        return network.eval().requires_grad_(False)

    def latent(self, latent_frames, rows=3, columns=4):
        return torch.randn(1, self.channels, latent_frames, rows, columns)

    def pixels(self, frames, rows=3, columns=4):
        stride = 8 if self.channels == 16 else 16
        return torch.rand(1, 3, frames, rows * stride, columns * stride) * 2 - 1


@pytest.fixture(scope="module", params=[16, 48])
def taehv(request, tmp_path_factory):
    name = {16: "taew2_1.safetensors", 48: "taew2_2.safetensors"}[request.param]
    return TaehvFile(request.param, tmp_path_factory.mktemp("tiny") / name)


@pytest.mark.parametrize("latent_frames", [1, 3])
def test_decode_agrees_with_comfyui_on_normalised_latents(taehv, error, comfyui_path, latent_frames):
    normalised = taehv.latent(latent_frames)
    reference = taehv.comfyui_network().decode(normalised) * 2 - 1
    latent = latent_space_for(taehv.channels).denormalise(normalised)
    assert error(taehv.load().decode(latent, device="cpu"), reference) < TOLERANCE


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_encode_agrees_with_comfyui_on_normalised_latents(taehv, error, comfyui_path, frames):
    pixels = taehv.pixels(frames)
    reference = taehv.comfyui_network().encode((pixels + 1) / 2)
    latent = taehv.load().encode(pixels, device="cpu")
    assert error(latent_space_for(taehv.channels).normalise(latent), reference) < TOLERANCE


def test_a_lighttae_works_on_the_latents_of_the_vae(taehv, error, tmp_path):
    light = TaehvFile(taehv.channels, tmp_path / "lighttaew2_1.safetensors")
    latent = taehv.latent(2)
    space = latent_space_for(taehv.channels)
    on_normalised = taehv.load().decode(space.denormalise(latent), device="cpu")
    assert error(light.load().decode(latent, device="cpu"), on_normalised) < 1e-4


def test_the_latent_space_can_be_said(taehv, error):
    latent = taehv.latent(1)
    said = taehv.load(takes_normalised_latents=False).decode(latent, device="cpu")
    denormalised = latent_space_for(taehv.channels).denormalise(latent)
    assert error(said, taehv.load().decode(denormalised, device="cpu")) < 1e-4


def test_the_vae_loader_takes_a_tiny_vae(taehv):
    vae = load_vae(Checkpoint.open(taehv.path), dtype=torch.float32)
    stride = 8 if taehv.channels == 16 else 16
    assert (vae.latent_channels, vae.spatial_stride) == (taehv.channels, stride)


def test_tiles_with_enough_overlap_give_the_whole(taehv, error):
    vae = taehv.load()
    stride, margin = vae.spatial_stride, vae.module.render_margin
    latent = taehv.latent(1, rows=2, columns=2 * margin + 6)
    tiling = Tiling((2 * margin + 4) * stride, 64, 4 * stride, 64)
    whole = vae.decode(latent, device="cpu")
    assert error(vae.decode(latent, device="cpu", tiling=tiling), whole) < TOLERANCE
    pixels = taehv.pixels(1, rows=2, columns=2 * margin + 6)
    encoded = vae.encode(pixels, device="cpu")
    assert error(vae.encode(pixels, device="cpu", tiling=tiling), encoded) < TOLERANCE


def test_a_wan_vae_in_the_tiny_loader_is_named(tiny21):
    with pytest.raises(ModelFileError, match=r"is not a tiny Wan VAE \(TAEHV\): it looks like a Wan 2.1 VAE"):
        load_tiny_vae(Checkpoint.open(tiny21.official_file), dtype=torch.float32)


def test_a_taehv_of_another_video_model_is_refused(tmp_path):
    file = TaehvFile(16, tmp_path / "tae_other.safetensors")
    file.weights["decoder.7.conv.weight"] = torch.randn(512, 256, 1, 1)  # 8 frames per latent, as in LTX
    save_file(file.weights, file.path)
    with pytest.raises(ModelFileError, match="a tiny VAE with 4 frames per latent in and 8 out"):
        file.load()
