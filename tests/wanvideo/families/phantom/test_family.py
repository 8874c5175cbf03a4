"""Phantom in the forward: parity with ComfyUI, and what must change nothing."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make
from comfyui_wanvideo.wanvideo.families.phantom.family import FAMILY
from comfyui_wanvideo.wanvideo.families.phantom.inputs import PHANTOM, PhantomInput
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.detect import detect

from ...transformer.conftest import forward, random_transformer, relative_error, run_state
from ...transformer.test_model import padded_text
from ...transformer.twins import comfy_twin
from ..conftest import extended

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2e-2


@pytest.fixture(scope="module")
def model():
    return extended(random_transformer(), FAMILY)


@pytest.fixture
def references():
    return torch.randn(1, 16, 2, 6, 10, generator=torch.Generator().manual_seed(4))


def forward_with(model, inputs, references, timesteps=None, **options):
    phantom = PhantomInput((references,))  # as prepared: normalised
    conditioning = replace(inputs.conditioning, inputs={PHANTOM: phantom})
    with torch.inference_mode():
        return model(inputs.latent, timesteps or [inputs.timestep], conditioning, run_state(**options))


@torch.inference_mode()
def test_a_forward_with_references_equals_comfyui_in_fp32(model, inputs, references, comfyui_path):
    expected = comfy_twin(model)(
        inputs.latent,
        torch.tensor([inputs.timestep]),
        context=padded_text(inputs),
        time_dim_concat=references,
    )
    assert relative_error(forward_with(model, inputs, references), expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_a_bf16_forward_with_references_is_as_close_to_fp32_as_comfyuis(inputs, references, comfyui_path):
    expected = forward_with(extended(random_transformer(), FAMILY), inputs, references)
    twin = comfy_twin(random_transformer()).bfloat16()
    twin.patch_embedding.float()  # as ComfyUI keeps it
    theirs = twin(
        inputs.latent.bfloat16(),
        torch.tensor([inputs.timestep]),
        context=padded_text(inputs).bfloat16(),
        time_dim_concat=references.bfloat16(),
    )
    low = extended(random_transformer(), FAMILY)
    for module in low.modules():
        if getattr(module, "parameter_dtype", "compute") == "compute":
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
    ours = relative_error(forward_with(low, inputs, references), expected)
    assert ours <= BF16_TOLERANCE
    assert ours <= 1.1 * relative_error(theirs, expected)


def test_without_its_input_nothing_changes(model, inputs):
    assert torch.equal(forward(model, inputs), forward(random_transformer(), inputs))


def test_references_change_the_prediction_and_not_its_size(model, inputs, references):
    plain = forward(model, inputs)
    found = forward_with(model, inputs, references)
    assert found.shape == plain.shape
    assert relative_error(found, plain) > 1e-2


def test_the_order_of_references_counts(model, inputs, references):
    found = forward_with(model, inputs, references.flip(2))
    assert relative_error(found, forward_with(model, inputs, references)) > 1e-3


def test_references_are_as_noisy_as_the_noisy_frames_of_the_video(model, inputs, references):
    """A first frame that is given clean, as in the 5B, does not make the references clean."""
    timesteps = [0.0, inputs.timestep, inputs.timestep]
    (_, (segment,)) = model.points.segments[PHANTOM].segments(
        PhantomInput((references,)), (3, 3, 5), timesteps
    )
    assert segment.timesteps == (inputs.timestep,)


def test_every_video_of_a_batch_sees_the_references(model, inputs, references):
    other = replace(inputs, latent=inputs.latent.flip(-1))
    both = replace(inputs, latent=torch.cat([inputs.latent, other.latent]))
    expected = torch.cat([forward_with(model, each, references) for each in (inputs, other)])
    assert relative_error(forward_with(model, both, references), expected) <= 1e-6


def test_row_chunks_change_nothing_but_rounding(model, inputs, references):
    found = forward_with(model, inputs, references, row_chunks=3)
    assert relative_error(found, forward_with(model, inputs, references)) <= FP32_TOLERANCE


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("tiny_wan21_phantom_fp32.safetensors", True),
        ("tiny_wan21_t2v_fp32.safetensors", True),
        ("tiny_wan22_ti2v_5b_fp32.safetensors", True),
        ("tiny_wan21_i2v_480_fp32.safetensors", False),
        ("tiny_wan21_fun_control_fp32.safetensors", False),
    ],
)
def test_every_text_to_video_model_takes_references(name, is_one, tmp_path):
    (file,) = (file for file in make.FILES if file.name == name)
    file.write(tmp_path / name, 0)
    assert FAMILY.is_in(detect(Checkpoint.open(tmp_path / name))) == is_one
