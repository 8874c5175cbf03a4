"""All families at once: which inputs each model takes, and that they go together."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make
from comfyui_wanvideo.wanvideo import families
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.clip_input import CLIP, ClipInput
from comfyui_wanvideo.wanvideo.conditioning.control import CONTROL, ControlInput
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.image import IMAGE, ImageInput
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.fun_camera.cameras import camera_of_poses
from comfyui_wanvideo.wanvideo.families.fun_camera.inputs import CAMERA, FunCameraInput
from comfyui_wanvideo.wanvideo.families.fun_control.inputs import FUN_REFERENCE, FunReferenceInput
from comfyui_wanvideo.wanvideo.families.phantom.inputs import PHANTOM, PhantomInput
from comfyui_wanvideo.wanvideo.families.uni3c.inputs import UNI3C, Uni3CControlnet, Uni3CInput
from comfyui_wanvideo.wanvideo.families.uni3c.load import load_uni3c
from comfyui_wanvideo.wanvideo.families.vace.inputs import VACE, VaceContext, VaceInput
from comfyui_wanvideo.wanvideo.generation import GenerationRequest, generate, run_size
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint

ACCEPTED = {
    "wan21_t2v": {PHANTOM, UNI3C},
    "wan21_i2v_480": {IMAGE, CLIP, UNI3C},
    "wan21_flf2v": {IMAGE, CLIP, UNI3C},
    "wan22_t2v_high": {PHANTOM, UNI3C},
    "wan22_i2v_high": {IMAGE, UNI3C},
    "wan22_ti2v_5b": {IMAGE, PHANTOM},
    "wan22_fun_inp_5b": {IMAGE},
    "wan21_fun_control": {CONTROL, IMAGE, CLIP, UNI3C},
    "wan21_fun_control_ref": {CONTROL, IMAGE, CLIP, FUN_REFERENCE, UNI3C},
    "wan22_fun_control": {CONTROL, IMAGE, FUN_REFERENCE, UNI3C},
    "wan22_fun_control_5b": {CONTROL, IMAGE, FUN_REFERENCE},
    "wan21_fun_camera": {CAMERA, IMAGE, CLIP, UNI3C},
    "wan22_fun_camera": {CAMERA, IMAGE, UNI3C},
    "wan22_fun_camera_5b": {CAMERA, IMAGE},
    "wan21_control_lora_merged": {CONTROL, UNI3C},
    "wan21_vace_full": {VACE, PHANTOM, UNI3C},
}
STEPS = 2
FRAMES, ROWS, COLUMNS = 3, 6, 8
OUTSIDE = StepRange(0.9, 0.9)  # no step of a run of two


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TEXT = TextEmbeds((noise(5, 256, seed=1),), (noise(4, 256, seed=2),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    make.write(folder, [*(f"tiny_{name}_fp32" for name in ACCEPTED), "tiny_uni3c_controlnet_fp32"])
    return folder


@pytest.fixture(scope="module")
def load(folder):
    """Makes a model with all families in its file; each is read once."""
    loaded = {}

    def load(name):
        if name not in loaded:
            file = Checkpoint.open(folder / "diffusion_models" / f"tiny_{name}_fp32.safetensors")
            loaded[name] = load_transformer(file, compute_dtype=torch.float32, extend=families.extend)
        return loaded[name].transformer

    return load


@pytest.fixture(scope="module")
def controlnet(folder):
    file = Checkpoint.open(folder / "controlnet" / "tiny_uni3c_controlnet_fp32.safetensors")
    return Uni3CControlnet(load_uni3c(file, compute_dtype=torch.float32), "tiny", sdpa)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_model_takes_exactly_the_inputs_of_its_families(load, name):
    assert load(name).accepted_inputs() == ACCEPTED[name]


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_channel_of_a_model_is_given_by_one_family(load, name):
    model = load(name)
    given = sum(part.width for part in model.points.channels.values())
    assert model.config.out_channels + given == model.config.in_channels


def made(name, channels, controlnet, **changes):
    """The input of a name for a video of three latent frames."""
    latent = noise(1, channels, FRAMES, ROWS, COLUMNS, seed=3)
    known = torch.zeros(1, 4, FRAMES, ROWS, COLUMNS)
    known[:, :, 0] = 1.0
    poses = [[0, 0.5, 0.9, 0.5, 0.5, 0, 0, 1, 0, 0, i / 10, 0, 1, 0, 0, 0, 0, 1, 0] for i in range(9)]
    inputs = {
        IMAGE: lambda: ImageInput(Timed(latent), Timed(known)),
        CLIP: lambda: ClipInput(rows=noise(1, 257, 1280, seed=4)),
        CONTROL: lambda: ControlInput(Timed(latent)),
        FUN_REFERENCE: lambda: FunReferenceInput(latent[:, :, :1]),
        CAMERA: lambda: FunCameraInput(camera_of_poses(poses)),
        PHANTOM: lambda: PhantomInput((latent[:, :, :2],)),
        VACE: lambda: VaceInput(
            (VaceContext(Timed(latent), Timed(-latent), Timed(torch.ones(1, 64, FRAMES, ROWS, COLUMNS))),)
        ),
        UNI3C: lambda: Uni3CInput(controlnet, Timed(latent)),
    }
    return replace(inputs[name](), **changes)


def request_of(model, inputs):
    stride = 16 if model.config.out_channels == 48 else 8
    return GenerationRequest(
        geometry=VideoGeometry(COLUMNS * stride, ROWS * stride, 4 * FRAMES - 3, stride),
        text=TEXT,
        schedule=build_schedule("euler", STEPS, 5.0),
        steps=(0, STEPS),
        cfg=3.0,
        seed=0,
        inputs=inputs,
    )


def run(model, inputs, **options):
    return generate(model, request_of(model, inputs), RunOptions(attention=sdpa, **options), device="cpu")


def needed(model, controlnet):
    """What the model cannot do without."""
    channels = model.config.out_channels
    return {
        name: made(name, channels, controlnet)
        for name, part in model.points.channels.items()
        if part.required
    }


PAIRS = [(name, accepted) for name in ACCEPTED for accepted in sorted(ACCEPTED[name])]


@pytest.mark.parametrize(("name", "input_name"), PAIRS)
def test_every_input_changes_the_video(load, controlnet, name, input_name):
    model = load(name)
    value = made(input_name, model.config.out_channels, controlnet)
    base = needed(model, controlnet)
    changed = {**base, input_name: value}
    if input_name in base:
        base[input_name] = replace(value, latent=Timed(-value.latent.values))
    assert not torch.allclose(run(model, changed).latent, run(model, base).latent, atol=1e-3)


@pytest.mark.parametrize(("name", "input_name"), [pair for pair in PAIRS if pair[1] not in (IMAGE, CLIP)])
def test_an_input_outside_its_steps_changes_nothing_bit_for_bit(load, controlnet, name, input_name):
    model, base = load(name), needed(load(name), controlnet)
    value = made(input_name, model.config.out_channels, controlnet, steps=OUTSIDE)
    plain, with_it = run(model, base), run(model, {**base, input_name: value})
    assert torch.equal(with_it.latent, plain.latent)


def test_vace_without_strength_and_phantom_outside_its_steps_change_nothing_bit_for_bit(load, controlnet):
    model = load("wan21_vace_full")
    vace = made(VACE, 16, controlnet)
    silent = replace(vace, contexts=(replace(vace.contexts[0], strength=0.0),))
    inputs = {VACE: silent, PHANTOM: made(PHANTOM, 16, controlnet, steps=OUTSIDE)}
    assert torch.equal(run(model, inputs).latent, run(model, {}).latent)


TOGETHER = {
    "VACE and Phantom": ("wan21_vace_full", (VACE, PHANTOM)),
    "VACE, Phantom and Uni3C": ("wan21_vace_full", (VACE, PHANTOM, UNI3C)),
    "Fun camera and Uni3C": ("wan21_fun_camera", (CAMERA, UNI3C, IMAGE, CLIP)),
    "Fun control with reference and Uni3C": ("wan21_fun_control_ref", (CONTROL, FUN_REFERENCE, IMAGE, UNI3C)),
}


@pytest.mark.parametrize("combination", TOGETHER)
def test_each_of_several_inputs_counts_beside_the_others(load, controlnet, combination):
    name, names = TOGETHER[combination]
    model = load(name)
    inputs = {each: made(each, 16, controlnet) for each in names}
    together = run(model, inputs).latent
    for left_out in names:
        others = {each: value for each, value in inputs.items() if each != left_out}
        assert not torch.allclose(run(model, others).latent, together, atol=1e-3), left_out


@pytest.mark.parametrize("combination", TOGETHER)
def test_several_inputs_split_into_row_chunks_give_the_same_video(load, controlnet, combination):
    name, names = TOGETHER[combination]
    inputs = {each: made(each, 16, controlnet) for each in names}
    whole, chunked = (run(load(name), inputs, row_chunks=chunks).latent for chunks in (1, 3))
    torch.testing.assert_close(chunked, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("combination", TOGETHER)
def test_a_window_of_all_frames_is_no_window(load, controlnet, combination):
    _, names = TOGETHER[combination]
    for each in names:
        value = made(each, 16, controlnet)
        assert tensors(value.window(range(FRAMES))) == tensors(value)


def tensors(value):
    """The numbers of every tensor that runs along the video."""
    found = [entry for entry in vars(value).values() if isinstance(entry, Timed)]
    return [entry.values.flatten().tolist() for entry in found]


def test_references_of_vace_and_phantom_leave_the_video_its_length(load, controlnet):
    vace = made(VACE, 16, controlnet)
    reference = noise(1, 16, 1, ROWS, COLUMNS, seed=8)
    vace = replace(vace, contexts=(replace(vace.contexts[0], references=(reference,)),))
    result = run(load("wan21_vace_full"), {VACE: vace, PHANTOM: made(PHANTOM, 16, controlnet)})
    assert (result.latent.shape[2], result.decode.leading_frames) == (FRAMES + 1, 1)


@pytest.mark.parametrize(("inputs", "idle"), [((), 2), ((VACE,), 0), ((PHANTOM,), 2)])
def test_the_memory_plan_leaves_out_a_side_network_without_input(load, controlnet, inputs, idle):
    given = {name: made(name, 16, controlnet) for name in inputs}
    model = load("wan21_vace_full")
    assert len(run_size(model, request_of(model, given)).idle_blocks) == idle


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_model_that_is_dropped_is_freed_at_once(folder, name):
    """A cycle through a point would keep its weights, and the mapped file, until the collector runs."""
    file = Checkpoint.open(folder / "diffusion_models" / f"tiny_{name}_fp32.safetensors")
    gc.disable()
    try:
        loaded = load_transformer(file, compute_dtype=torch.float32, extend=families.extend)
        parts: list[object] = [*loaded.transformer.modules(), loaded.transformer.points]
        held = [weakref.ref(part) for part in parts]
        del loaded, parts
        alive = [type(each()).__name__ for each in held if each() is not None]
    finally:
        gc.enable()
    assert alive == []
