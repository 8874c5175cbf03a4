"""Fun Camera in the forward: parity with ComfyUI, the adapter by hand, and what must change nothing."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from comfyui_wanvideo.wanvideo.conditioning.image import IMAGE, ImageInput
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.fun_camera.cameras import camera_of_poses
from comfyui_wanvideo.wanvideo.families.fun_camera.inputs import CAMERA, FunCameraInput

from ..fun_control.conftest import (
    COLUMNS,
    FRAMES,
    ROWS,
    forward,
    prepared,
    relative_error,
    run_state,
    setup_of,
    theirs,
    video_latent,
)
from .test_cameras import channels, entries

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2e-2
OURS_AND_COMFYUIS = ("wan21_fun_camera", "wan22_fun_camera")
CAMERAS = (*OURS_AND_COMFYUIS, "wan22_fun_camera_5b")


def camera(**more):
    return FunCameraInput(camera=camera_of_poses(entries()), **more)


def image(model):
    mask = torch.zeros(1, 4, FRAMES, ROWS, COLUMNS)
    mask[:, :, 0] = 1
    return ImageInput(Timed(video_latent(model, seed=6)), Timed(mask))


def rays_of(model):
    geometry = setup_of(model).geometry
    return channels(camera_of_poses(entries()), (geometry.height, geometry.width))


def joined(model, has_image):
    latent = video_latent(model)
    rest = torch.zeros(1, model.config.in_channels - 16, *latent.shape[2:])
    if has_image:
        picture = setup_of(model).space.normalise(video_latent(model, seed=6))
        if model.config.in_channels == 32:
            rest[:, :, 0] = picture[:, :, 0]
        else:
            rest[:, :4, 0] = 1
            rest[:, 4:] = picture
    return torch.cat([latent, rest], dim=1)


@pytest.mark.parametrize("has_image", [False, True])
@pytest.mark.parametrize("name", OURS_AND_COMFYUIS)
def test_a_forward_equals_comfyui_in_fp32(load, comfyui_path, name, has_image):
    model = load(name)
    expected = theirs(model, joined(model, has_image), camera_conditions=rays_of(model)[None])
    inputs = {CAMERA: camera(), **({IMAGE: image(model)} if has_image else {})}
    assert relative_error(forward(model, inputs), expected) <= FP32_TOLERANCE


@pytest.mark.parametrize("name", OURS_AND_COMFYUIS)
def test_a_bf16_forward_is_close_to_comfyui_in_fp32(load, comfyui_path, name):
    model = load(name)
    expected = theirs(model, joined(model, has_image=False), camera_conditions=rays_of(model)[None])
    found = forward(load(name, torch.bfloat16), {CAMERA: camera()})
    assert relative_error(found, expected) <= BF16_TOLERANCE


@pytest.mark.parametrize("name", CAMERAS)
def test_a_camera_changes_the_prediction(load, name):
    model = load(name)
    assert relative_error(forward(model, {CAMERA: camera()}), forward(model, {})) > 1e-2


def adapter_by_hand(adapter, rays, stride):
    """VideoX-Fun's adapter, written with sums: folded cells, a product per patch, the residual block."""
    frames, channel_count, height, width = rays.shape
    cells = rays.reshape(frames, channel_count, height // stride, stride, width // stride, stride)
    cells = cells.permute(0, 1, 3, 5, 2, 4).reshape(frames, -1, height // stride, width // stride)
    patches = cells.unfold(2, 2, 2).unfold(3, 2, 2)  # [F, C, rows, columns, 2, 2]
    x = torch.einsum("fcrsij,dcij->fdrs", patches, adapter.conv.weight) + adapter.conv.bias[:, None, None]
    block = adapter.residual_blocks[0]

    def same(x, conv):
        padded = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
        return torch.einsum("fcrsij,dcij->fdrs", padded, conv.weight) + conv.bias[:, None, None]

    return x + same(same(x, block.conv1).clamp_min(0), block.conv2)


@pytest.mark.parametrize(("name", "stride"), [("wan21_fun_camera", 8), ("wan22_fun_camera_5b", 16)])
def test_the_adapter_equals_one_written_by_hand(load, name, stride):
    model = load(name)
    rays = rays_of(model).transpose(0, 1)
    with torch.inference_mode():
        expected = adapter_by_hand(model.control_adapter, rays, stride).movedim(1, -1)
        found = model.control_adapter(rays)
    assert found.shape == (FRAMES, ROWS // 2, COLUMNS // 2, 256)
    assert relative_error(found, expected) <= FP32_TOLERANCE


def residual(model, value, run=None):
    point = model.points.embed[CAMERA]
    with torch.inference_mode():
        return point.residual(value, torch.zeros(1, FRAMES, ROWS // 2, COLUMNS // 2, 256), run or run_state())


def test_the_strength_is_a_factor_on_what_is_added(load):
    model = load("wan21_fun_camera")
    whole = residual(model, prepared(model, {CAMERA: camera()})[CAMERA])
    half = residual(model, prepared(model, {CAMERA: camera(strength=0.5)})[CAMERA])
    torch.testing.assert_close(half, whole / 2)


def test_strength_0_takes_part_in_no_step():
    assert all(camera(strength=0.0).at(step, 4) is None for step in range(4))


def test_it_takes_part_in_its_steps_only():
    value = camera(steps=StepRange(0.25, 0.5))
    assert [value.at(step, 4) is value for step in range(4)] == [False, True, True, False]


@pytest.mark.parametrize("name", CAMERAS)
def test_without_a_camera_the_adapter_changes_nothing(load, name, monkeypatch):
    model = load(name)
    plain = forward(model, {})
    monkeypatch.delitem(model.points.embed, CAMERA)
    assert torch.equal(forward(model, {}), plain)


def test_the_rays_are_computed_once_a_run(load, monkeypatch):
    model, run, calls = load("wan21_fun_camera"), run_state(), []
    original = type(model.control_adapter).forward

    def counted(self, rays):
        calls.append(1)
        return original(self, rays)

    monkeypatch.setattr(type(model.control_adapter), "forward", counted)
    value = prepared(model, {CAMERA: camera()})[CAMERA]
    for _ in range(3):
        residual(model, value, run)
    assert len(calls) == FRAMES


def test_it_is_kept_in_the_dtype_of_the_model(load):
    model = load("wan21_fun_camera", torch.bfloat16)
    assert residual(model, prepared(model, {CAMERA: camera()})[CAMERA]).dtype == torch.bfloat16


@pytest.mark.parametrize("frames", [[1, 2], [2, 0, 1], [0]])
def test_a_window_has_the_camera_of_its_frames_without_another_computation(load, frames, monkeypatch):
    model, run = load("wan21_fun_camera"), run_state()
    value = prepared(model, {CAMERA: camera()})[CAMERA]
    whole = residual(model, value, run)
    monkeypatch.setattr(type(model.control_adapter), "forward", None)
    assert torch.equal(residual(model, value.window(frames), run), whole[:, frames])


def test_leading_and_trailing_frames_are_seen_by_no_camera(load):
    model = load("wan21_fun_camera")
    found = residual(model, camera().prepared(setup_of(model, leading_frames=1, trailing_frames=2)))
    whole = residual(model, camera().prepared(setup_of(model)))
    expected = torch.cat([torch.zeros_like(whole[:, :1]), whole, torch.zeros_like(whole[:, :2])], dim=1)
    assert torch.equal(found, expected)


def test_the_rays_are_those_of_the_size_of_the_run(load):
    model = load("wan21_fun_camera")
    setup = setup_of(model)
    wide = replace(setup, geometry=replace(setup.geometry, width=setup.geometry.width + 16))
    shot = camera().prepared(wide).shot
    assert shot is not None
    assert shot.size == (ROWS * 8, COLUMNS * 8 + 16)


def test_a_path_of_another_length_is_fitted_and_said(load, caplog):
    value = FunCameraInput(camera=camera_of_poses(entries(6)))
    shot = value.prepared(setup_of(load("wan21_fun_camera"))).shot
    assert shot is not None
    assert shot.camera.frames == 9
    assert "the camera path has 6 frames, the video 9: it holds its last frame" in caplog.text


@pytest.mark.parametrize("row_chunks", [1, 3])
def test_row_chunks_change_nothing_but_rounding(load, row_chunks):
    model = load("wan21_fun_camera")
    found = forward(model, {CAMERA: camera()}, row_chunks=row_chunks)
    assert relative_error(found, forward(model, {CAMERA: camera()})) <= FP32_TOLERANCE


def test_every_video_of_a_batch_has_the_camera(load):
    model = load("wan21_fun_camera")
    latents = [video_latent(model), video_latent(model, seed=8)]
    expected = torch.cat([forward(model, {CAMERA: camera()}, latent=latent) for latent in latents])
    found = forward(model, {CAMERA: camera()}, latent=torch.cat(latents))
    assert relative_error(found, expected) <= 1e-6


def test_an_interrupt_stops_the_computation_of_rays(load):
    model = load("wan21_fun_camera")

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        residual(model, prepared(model, {CAMERA: camera()})[CAMERA], run_state(check=stop))


def test_working_memory_is_that_of_what_is_kept(load):
    model = load("wan21_fun_camera")
    kept = residual(model, prepared(model, {CAMERA: camera()})[CAMERA])
    tokens = setup_of(model).geometry.tokens
    assert camera().working_bytes(tokens, model.config, 4) == kept.numel() * 4


def test_the_tokens_are_not_of_the_cameras_memory(load):
    """The blocks overwrite tokens: what is kept must stay."""
    model, run = load("wan21_fun_camera"), run_state()
    value = prepared(model, {CAMERA: camera()})[CAMERA]
    before = residual(model, value, run).clone()
    forward(model, {CAMERA: camera()}, run=run)
    assert torch.equal(residual(model, value, run), before)
