"""Uni3C in the forward: parity with ComfyUI, and what must change nothing."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.uni3c.family import FAMILY
from comfyui_wanvideo.wanvideo.families.uni3c.inputs import UNI3C, Uni3CControlnet, Uni3CInput
from comfyui_wanvideo.wanvideo.families.uni3c.load import load_uni3c
from comfyui_wanvideo.wanvideo.families.uni3c.stream import Uni3CSession
from comfyui_wanvideo.wanvideo.transformer.program import CompileSettings, compile_program
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint

from ...transformer.conftest import CONFIG, forward, random_transformer, relative_error, run_state
from ...transformer.test_model import padded_text
from ...transformer.test_points import AddedSegment
from ...transformer.twins import comfy_twin
from ..conftest import extended
from .conftest import LAYERS

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2e-2
STRENGTH = 0.7


class Channels:
    """Channels that are the same whatever the input."""

    required = ""

    def __init__(self, rank, values):
        self.rank, self.values, self.width = rank, values, values.shape[1]

    def channels(self, family_input, latent):
        return self.values


def normal(*shape, seed=9):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_uni3c(model, **parts):
    model = extended(model, FAMILY)
    for name, part in parts.items():
        model.points.add_channels(name, part)
    return model


@pytest.fixture(scope="module")
def model():
    return with_uni3c(random_transformer())


@pytest.fixture(scope="module")
def image_channels():
    return Channels(2, normal(1, 20, 3, 6, 10))


@pytest.fixture(scope="module")
def image_model(image_channels):
    return with_uni3c(random_transformer(replace(CONFIG, in_channels=36)), image=image_channels)


def prepared(controlnet, render, **changes):
    return Uni3CInput(controlnet, Timed(render), strength=STRENGTH, **changes)


def forward_with(model, inputs, uni3c, timesteps=None, **options):
    conditioning = replace(inputs.conditioning, inputs={UNI3C: uni3c})
    with torch.inference_mode():
        return model(inputs.latent, timesteps or [inputs.timestep], conditioning, run_state(**options))


def comfy_network(controlnet):
    """ComfyUI's module with the same weights; it names them as we do."""
    import comfy.ops
    from comfy.ldm.wan.uni3c import WanUni3CControlnet

    sizes = controlnet.network.config
    twin = WanUni3CControlnet(
        in_channels=sizes.in_channels,
        conv_out_dim=sizes.main_width,
        dim=sizes.width,
        ffn_dim=sizes.ffn_width,
        num_heads=sizes.width // 64,
        num_layers=sizes.layers,
        time_embed_dim=sizes.main_width,
        out_proj_dim=sizes.main_width,
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.disable_weight_init,
    )
    twin.load_state_dict(controlnet.network.state_dict(), strict=True)
    return twin.eval()


def comfy_forward(model, inputs, controlnet, render, channels=None):
    """A forward of ComfyUI's model with its patch; the render is encoded already."""
    from types import SimpleNamespace

    from comfy_extras.nodes_model_patch import WanUni3CCnetPatch

    patcher = SimpleNamespace(model=comfy_network(controlnet))
    patch = WanUni3CCnetPatch(patcher, None, None, None, STRENGTH, 1.0, 0.0)
    patch.prepared_render = render
    latent = inputs.latent if channels is None else torch.cat([inputs.latent, channels], dim=1)
    return comfy_twin(model)(
        latent,
        torch.tensor([inputs.timestep]),
        context=padded_text(inputs),
        transformer_options={"patches": {"double_block": [patch]}},
    )


@pytest.fixture
def comfyui(comfyui_path, monkeypatch):
    monkeypatch.syspath_prepend(comfyui_path)  # its module `nodes`, not this repository's folder


@torch.inference_mode()
def test_a_forward_equals_comfyui_in_fp32(model, inputs, controlnet, render, comfyui):
    expected = comfy_forward(model, inputs, controlnet, render)
    found = forward_with(model, inputs, prepared(controlnet, render))
    assert relative_error(found, expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_a_forward_of_an_image_model_equals_comfyui_in_fp32(
    image_model, image_channels, inputs, controlnet, render, comfyui
):
    expected = comfy_forward(image_model, inputs, controlnet, render, image_channels.values)
    found = forward_with(image_model, inputs, prepared(controlnet, render))
    assert relative_error(found, expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_mask_tokens_equal_comfyuis_with_an_empty_camera(controlnet, comfyui):
    latent, mask = normal(1, 36, 3, 6, 10), normal(1, 1, 9, 48, 80, seed=3) > 0
    rays = torch.cat([mask.float(), torch.zeros(1, 6, 9, 48, 80)], dim=1)
    twin = comfy_network(controlnet)
    expected, _ = twin.process_input(latent, rays)
    network = controlnet.network
    padded = torch.nn.functional.pad(mask, [0, 0, 0, 0, 3, 0])  # ComfyUI's module does so itself
    features = network.controlnet_mask_embedding.features(padded)
    assert relative_error(network.embed(latent, features, frames_at_once=2), expected) <= FP32_TOLERANCE


def test_a_bf16_network_is_close_to_fp32(model, inputs, file, controlnet, render):
    low = load_uni3c(Checkpoint.open(file), compute_dtype=torch.bfloat16)
    found = forward_with(model, inputs, prepared(Uni3CControlnet(low, file.name), render))
    expected = forward_with(model, inputs, prepared(controlnet, render))
    assert 0 < relative_error(found, expected) <= BF16_TOLERANCE


def test_a_mask_changes_the_prediction(model, inputs, controlnet, render):
    mask = Timed(torch.ones(1, 1, 12, 48, 80, dtype=torch.bool), clock=4)
    found = forward_with(model, inputs, prepared(controlnet, render, mask=mask))
    assert relative_error(found, forward_with(model, inputs, prepared(controlnet, render))) > 1e-3


@pytest.mark.parametrize("changes", [{"strength": 0.0}, {"steps": StepRange(0.9, 1.0)}])
def test_without_strength_and_outside_its_steps_it_takes_no_part(controlnet, render, changes):
    assert replace(prepared(controlnet, render), **changes).at(0, 4) is None


def test_a_model_that_could_take_it_is_unchanged_without(model, inputs):
    assert torch.equal(forward(model, inputs), forward(random_transformer(), inputs))


def test_the_mask_is_found_behind_the_channels_of_a_control_video(inputs, controlnet, render):
    model = with_uni3c(
        random_transformer(replace(CONFIG, in_channels=52)),
        control=Channels(1, normal(1, 16, 3, 6, 10)),
        image=Channels(2, torch.cat([torch.full((1, 4, 3, 6, 10), 0.25), normal(1, 16, 3, 6, 10)], dim=1)),
    )
    seen = []
    patches = controlnet.network.controlnet_patch_embedding
    handle = patches.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    forward_with(model, inputs, prepared(controlnet, render))
    handle.remove()
    assert torch.equal(seen[0][:, :16], inputs.latent)
    assert (seen[0][:, 16:20] == 0.25).all()
    assert torch.equal(seen[0][:, 20:], render)


@pytest.fixture
def watched(monkeypatch):
    """The tokens before and after each call of the session, in order of the blocks."""
    seen = []
    after_block = Uni3CSession.after_block

    def watching(self, index, tokens):
        before = tokens.clone()
        result = after_block(self, index, tokens)
        seen.append((before, result.clone()))
        return result

    monkeypatch.setattr(Uni3CSession, "after_block", watching)
    return seen


def test_tokens_beside_the_video_get_nothing(inputs, controlnet, render, watched):
    """A reference in front of the video moves it in the sequence."""
    model = with_uni3c(random_transformer())
    model.points.segments["example"] = AddedSegment()
    conditioning = replace(
        inputs.conditioning, inputs={UNI3C: prepared(controlnet, render), "example": object()}
    )
    with torch.inference_mode():
        model(inputs.latent, [inputs.timestep], conditioning, run_state())
    (before, after), reference_tokens = watched[0], 3 * 5
    assert torch.equal(after[:, :reference_tokens], before[:, :reference_tokens])
    assert not torch.equal(after[:, reference_tokens:], before[:, reference_tokens:])


def test_only_as_many_blocks_as_the_network_has_are_added_to(model, inputs, controlnet, render, watched):
    forward_with(model, inputs, prepared(controlnet, render))
    changes = [not torch.equal(before, after) for before, after in watched]
    assert changes == [True] * LAYERS + [False] * (CONFIG.layers - LAYERS)


@pytest.mark.parametrize("is_masked", [False, True])
def test_row_chunks_change_nothing_but_rounding(model, inputs, controlnet, render, is_masked):
    mask = Timed(torch.ones(1, 1, 12, 48, 80, dtype=torch.bool), clock=4) if is_masked else None
    uni3c = prepared(controlnet, render, mask=mask)
    found = forward_with(model, inputs, uni3c, row_chunks=3)
    assert relative_error(found, forward_with(model, inputs, uni3c)) <= FP32_TOLERANCE


def test_a_batch_equals_its_members(model, inputs, controlnet, render):
    other = replace(inputs, latent=inputs.latent.flip(-1))
    both = replace(inputs, latent=torch.cat([inputs.latent, other.latent]))
    uni3c = prepared(controlnet, render)
    expected = torch.cat([forward_with(model, each, uni3c) for each in (inputs, other)])
    assert relative_error(forward_with(model, both, uni3c), expected) <= 1e-6


def test_equal_timesteps_per_frame_equal_one_timestep(model, inputs, controlnet, render):
    uni3c = prepared(controlnet, render)
    per_frame = forward_with(model, inputs, uni3c, [inputs.timestep] * 3)
    assert torch.equal(per_frame, forward_with(model, inputs, uni3c))


def test_a_window_equals_a_run_of_its_frames(model, inputs, controlnet, render):
    mask = Timed(normal(1, 1, 12, 48, 80) > 0, clock=4)
    uni3c = prepared(controlnet, render, mask=mask)
    short = replace(inputs, latent=inputs.latent[:, :, 1:])
    alone = prepared(controlnet, render[:, :, 1:], mask=Timed(mask.values[:, :, 4:], clock=4))
    assert torch.equal(forward_with(model, short, uni3c.window([1, 2])), forward_with(model, short, alone))


def test_mask_features_of_a_run_are_made_once(model, inputs, controlnet, render, monkeypatch):
    embedding = controlnet.network.controlnet_mask_embedding
    features, calls = embedding.features, []
    monkeypatch.setattr(embedding, "features", lambda mask: calls.append(mask) or features(mask))
    mask = Timed(torch.ones(1, 1, 12, 48, 80, dtype=torch.bool), clock=4)
    conditioning = replace(inputs.conditioning, inputs={UNI3C: prepared(controlnet, render, mask=mask)})
    run = run_state()
    with torch.inference_mode():
        for _ in range(2):
            model(inputs.latent, [inputs.timestep], conditioning, run)
    assert len(calls) == 1


def test_a_forward_touches_no_other_device(inputs, file, render):
    """On the meta device, where mixing two is an error."""
    meta = torch.device("meta")
    network = load_uni3c(Checkpoint.open(file), compute_dtype=torch.bfloat16).to(meta)
    mask = Timed(torch.ones(1, 1, 12, 48, 80, dtype=torch.bool, device=meta), clock=4)
    uni3c = Uni3CInput(Uni3CControlnet(network, "tiny"), Timed(render.to(meta)), mask)
    model = with_uni3c(random_transformer().to(meta))
    elsewhere = replace(inputs, latent=inputs.latent.to(meta))
    assert forward_with(model, elsewhere, uni3c, row_chunks=3).device == meta


def test_compiled_blocks_give_the_same_numbers(model, inputs, controlnet, render):
    program = compile_program(CompileSettings(backend="eager"), "cpu")
    found = forward_with(model, inputs, prepared(replace(controlnet, program=program), render))
    expected = forward_with(model, inputs, prepared(controlnet, render))
    assert relative_error(found, expected) <= FP32_TOLERANCE


def test_blocks_are_none_of_the_models(model):
    assert not model.points.streams[UNI3C].blocks
    assert [stage.stream for stage in model.stages()] == [None] * CONFIG.layers
