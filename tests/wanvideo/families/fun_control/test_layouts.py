"""The channels behind the noise, against what ComfyUI's nodes and model classes make of the same pictures."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.conditioning import FamilyInput
from comfyui_wanvideo.wanvideo.conditioning.control import CONTROL, ControlInput
from comfyui_wanvideo.wanvideo.conditioning.image import IMAGE, ImageInput
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.fun_control.inputs import FUN_REFERENCE, FunReferenceInput

from .conftest import COLUMNS, FRAMES, ROWS, forward, noise, prepared, video_latent

PIXEL_FRAMES = 4 * FRAMES - 3
START, CONTROL_VIDEO, REFERENCE = 0.1, 0.2, 0.3  # grey levels, which tell the pictures apart


class KnownVae:
    """Gives every grey level a latent of its own."""

    def __init__(self, channels):
        self.latent_channels = channels

    def spacial_compression_encode(self):
        return 16 if self.latent_channels == 48 else 8

    def encode(self, images):
        frames, level = (images.shape[0] - 1) // 4 + 1, round(float(images[0, 0, 0, 0]) * 10)
        return noise(1, self.latent_channels, frames, ROWS, COLUMNS, seed=level)


def pictures(level, frames, stride):
    return torch.full((frames, ROWS * stride, COLUMNS * stride, 3), level)


def joined_channels(model, inputs):
    """What our patch embedding is given."""
    seen = []
    handle = model.patch_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        forward(model, inputs)
    finally:
        handle.remove()
    return seen[0]


def stub_of(model, space) -> Any:
    """What ComfyUI's model class reads of itself."""
    return SimpleNamespace(
        diffusion_model=model,
        latent_format=space,
        process_latent_in=space.process_in,
        image_to_video=False,
    )


def comfy_conditions(extras, model, node, **images):
    """ComfyUI's node, and what its model class makes of the result: channels, reference latent."""
    import comfy.latent_formats
    from comfy.model_base import WAN21

    vae = KnownVae(model.config.out_channels)
    stride = vae.spacial_compression_encode()
    output = getattr(extras("nodes_wan"), node).execute(
        positive=[[torch.zeros(1), {}]],
        negative=[[torch.zeros(1), {}]],
        vae=vae,
        width=COLUMNS * stride,
        height=ROWS * stride,
        length=PIXEL_FRAMES,
        batch_size=1,
        **{name: pictures(level, frames, stride) for name, (level, frames) in images.items()},
    )
    values = output.result[0][0][1]
    formats = comfy.latent_formats
    space = formats.Wan22() if model.config.out_channels == 48 else formats.Wan21()
    channels = WAN21.concat_cond(stub_of(model, space), noise=video_latent(model), device="cpu", **values)
    assert channels is not None
    references = values.get("reference_latents")
    return channels, None if references is None else space.process_in(references[-1])[:, :, 0]


def control(model):
    latent = KnownVae(model.config.out_channels).encode(pictures(CONTROL_VIDEO, PIXEL_FRAMES, 1))
    return ControlInput(latent=Timed(latent))


def start(model):
    latent = KnownVae(model.config.out_channels).encode(pictures(START, 1, 1))
    mask = torch.zeros(1, 4, FRAMES, ROWS, COLUMNS)
    mask[:, :, 0] = 1
    return ImageInput(Timed(torch.cat([latent, video_latent(model)[:, :, 1:]], dim=2)), Timed(mask))


@pytest.mark.parametrize("has_start", [False, True])
def test_wan_2_1_fun_control(load, comfy_extras, has_start):
    model = load("wan21_fun_control")
    images = {"control_video": (CONTROL_VIDEO, PIXEL_FRAMES)}
    inputs: dict[str, FamilyInput] = {CONTROL: control(model)}
    if has_start:
        images["start_image"] = (START, 1)
        inputs[IMAGE] = start(model)
    expected, _ = comfy_conditions(comfy_extras, model, "WanFunControlToVideo", **images)
    torch.testing.assert_close(joined_channels(model, inputs)[:, 16:], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["wan22_fun_control", "wan22_fun_control_5b"])
def test_wan_2_2_fun_control_without_image(load, comfy_extras, name):
    model = load(name)
    expected, _ = comfy_conditions(
        comfy_extras, model, "Wan22FunControlToVideo", control_video=(CONTROL_VIDEO, PIXEL_FRAMES)
    )
    found = joined_channels(model, {CONTROL: control(model)})[:, model.config.out_channels :]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["wan22_fun_control", "wan22_fun_control_5b"])
def test_wan_2_2_fun_control_with_a_start_image_has_mask_and_latent_behind_the_control(
    load, comfy_extras, name
):
    """ComfyUI's node has no input for the image; its layout is the same, with a latent of grey behind it."""
    model = load(name)
    channels = model.config.out_channels
    expected, _ = comfy_conditions(comfy_extras, model, "Wan22FunControlToVideo", start_image=(START, 1))
    found = joined_channels(model, {IMAGE: start(model)})[:, channels:]
    torch.testing.assert_close(found[:, :, 0], expected[:, :, 0], atol=1e-6, rtol=1e-6)
    assert torch.equal(found[:, channels : channels + 4], expected[:, channels : channels + 4])


@pytest.mark.parametrize("name", ["wan22_fun_control", "wan22_fun_control_5b"])
def test_the_reference_latent_is_comfyui_s(load, comfy_extras, name):
    model = load(name)
    _, expected = comfy_conditions(comfy_extras, model, "Wan22FunControlToVideo", ref_image=(REFERENCE, 1))
    latent = KnownVae(model.config.out_channels).encode(pictures(REFERENCE, 1, 1))
    found = prepared(model, {FUN_REFERENCE: FunReferenceInput(latent=latent)})[FUN_REFERENCE]
    assert isinstance(found, FunReferenceInput)
    torch.testing.assert_close(found.latent, expected, atol=1e-6, rtol=1e-6)
