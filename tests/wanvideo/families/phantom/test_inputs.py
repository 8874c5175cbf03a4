"""Phantom's input: fitting, guidance, the null value, the length of the result."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.families.phantom.family import FAMILY
from comfyui_wanvideo.wanvideo.families.phantom.inputs import AS_WRAPPER, PHANTOM, PhantomInput
from comfyui_wanvideo.wanvideo.generation import GenerationRequest, generate, plan_generation, run_size
from comfyui_wanvideo.wanvideo.sampling.noise import start_latent
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

from ...transformer.conftest import CONFIG, random_transformer, relative_error, run_state
from ..conftest import extended

GEOMETRY = VideoGeometry(64, 48, 9)
SPACE = latent_space_for(16)
SETUP = RunSetup(CONFIG, GEOMETRY, SPACE)
STEPS = 4
CFG, SCALE = 7.5, 5.0


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TEXT = TextEmbeds((normal(9, CONFIG.text_width, seed=0),), (normal(5, CONFIG.text_width, seed=1),))
REFERENCES = (normal(1, 16, 1, 6, 8, seed=2), normal(1, 16, 1, 6, 8, seed=3))


@pytest.fixture(scope="module")
def model():
    return extended(random_transformer(), FAMILY)


def request(phantom, **changes):
    base = GenerationRequest(
        geometry=GEOMETRY,
        text=TEXT,
        schedule=build_schedule("euler", STEPS, 5.0),
        steps=(0, STEPS),
        cfg=CFG,
        seed=7,
        inputs={} if phantom is None else {PHANTOM: phantom},
    )
    return replace(base, **changes)


def run(model, phantom, **changes):
    return generate(model, request(phantom, **changes), RunOptions(attention=sdpa), device="cpu")


def passes_at(phantom, step):
    return plan_generation(request(phantom)).guidance.active(step)


def velocity(model, latent, timestep, prompt, references):
    prepared = PhantomInput((references,))
    conditioning = Conditioning(GEOMETRY, text=(prompt,), inputs={PHANTOM: prepared})
    with torch.inference_mode():
        return model(latent, [timestep], conditioning, run_state())


def test_a_step_is_the_published_formula_of_three_passes(model):
    schedule = build_schedule("euler", STEPS, 5.0)
    noise = start_latent(GEOMETRY.latent_shape(16), 7).noise
    references = SPACE.normalise(torch.cat(REFERENCES, dim=2))
    (prompt,), (negative,) = TEXT.prompt_embeds, TEXT.negative_prompt_embeds
    timestep = schedule.timesteps[0]
    neither = velocity(model, noise, timestep, negative, torch.zeros_like(references))
    image = velocity(model, noise, timestep, negative, references)
    both = velocity(model, noise, timestep, prompt, references)
    guided = neither + SCALE * (image - neither) + CFG * (both - image)
    expected = noise + (schedule.sigmas[1] - schedule.sigmas[0]) * guided
    found = run(model, PhantomInput(REFERENCES, SCALE), steps=(0, 1))
    assert relative_error(SPACE.normalise(found.latent), expected) <= 1e-5


def test_three_passes_count():
    assert passes_at(PhantomInput(REFERENCES, SCALE), 0) == ("negative", PHANTOM, "positive")


def test_a_scale_of_1_needs_no_pass_of_its_own():
    assert passes_at(PhantomInput(REFERENCES, 1.0), 0) == ("negative", "positive")


def test_the_scale_may_be_a_list_of_steps():
    phantom = PhantomInput(REFERENCES, [SCALE, 1.0])
    assert [len(passes_at(phantom, step)) for step in range(STEPS)] == [3, 2, 2, 2]


def test_outside_its_steps_there_are_two_passes():
    phantom = PhantomInput(REFERENCES, SCALE, steps=StepRange(0.0, 0.25))
    assert [len(passes_at(phantom, step)) for step in range(STEPS)] == [3, 3, 2, 2]


def test_outside_its_steps_nothing_changes(model):
    never = PhantomInput(REFERENCES, SCALE, steps=StepRange(0.9, 1.0))
    assert torch.equal(run(model, never).latent, run(model, None).latent)


def test_the_null_value_is_zero_to_the_model():
    off = PhantomInput(REFERENCES).prepared(SETUP).variant(is_on=False, is_negative=True)
    assert not off.references[0].any()


def test_conditions_of_the_passes_are_those_of_comfyui(comfyui_path, monkeypatch):
    """Its node gives three conditionings; the model is shown their latents normalised."""
    monkeypatch.syspath_prepend(comfyui_path)  # its module `nodes`, not this repository's folder
    from comfy_extras.nodes_wan import WanPhantomSubjectToVideo

    class Vae:
        def encode(self, image):
            return REFERENCES[0] if image.mean() < 0.5 else REFERENCES[1]

    pictures = torch.stack([torch.zeros(48, 64, 3), torch.ones(48, 64, 3)])
    positive, negative_text, negative = WanPhantomSubjectToVideo.execute(
        [[None, {}]], [[None, {}]], Vae(), 64, 48, 9, 1, pictures
    ).args[:3]
    prepared = PhantomInput(REFERENCES, SCALE).prepared(SETUP)
    off = prepared.variant(is_on=False, is_negative=True)
    for theirs, ours in ((positive, prepared), (negative_text, prepared), (negative, off)):
        shown = SPACE.normalise(theirs[0][1]["time_dim_concat"])
        torch.testing.assert_close(shown, ours.references[0], atol=1e-6, rtol=0)


def test_as_the_wrapper_the_references_are_in_both_passes(model):
    """The guidance scale of the references has no effect then."""
    found = run(model, PhantomInput(REFERENCES, SCALE, AS_WRAPPER))
    same = run(model, PhantomInput(REFERENCES, 1.0))
    assert torch.equal(found.latent, same.latent[:, :, :1])


def test_as_the_wrapper_both_results_are_cut_by_the_references(model):
    found = run(model, PhantomInput(REFERENCES, SCALE, AS_WRAPPER))
    assert found.latent.shape == found.denoised.shape == (1, 16, 1, 6, 8)
    assert found.decode.latent_frames == 1


def test_three_passes_give_the_whole_length(model):
    assert run(model, PhantomInput(REFERENCES, SCALE)).latent.shape == (1, 16, 3, 6, 8)


def test_a_cut_that_leaves_nothing_is_refused_with_both_numbers(model):
    three = PhantomInput((*REFERENCES, REFERENCES[0]), SCALE, AS_WRAPPER)
    with pytest.raises(InputError, match="by 3 latent frames, and this video has 3"):
        run(model, three)


def test_references_of_another_size_are_fitted_and_that_is_said(caplog):
    other = normal(1, 16, 1, 10, 4, seed=5)
    prepared = PhantomInput((REFERENCES[0], other)).prepared(SETUP)
    assert prepared.references[0].shape == (1, 16, 2, 6, 8)
    assert "phantom_latent_2: made for 32x80, the video is 64x48; resized" in caplog.text


def test_references_of_another_vae_are_refused_by_name(model):
    wrong = PhantomInput((REFERENCES[0], torch.zeros(1, 48, 1, 3, 4)))
    with pytest.raises(InputError, match="phantom_latent_2: its latent has 48 channels"):
        run(model, wrong)


def test_a_window_has_all_references():
    windowed = PhantomInput(REFERENCES).window([1, 2])
    assert [id(latent) for latent in windowed.references] == [id(latent) for latent in REFERENCES]


def test_the_memory_plan_counts_the_tokens_of_the_references(model):
    without = run_size(model, request(None)).tokens
    assert run_size(model, request(PhantomInput(REFERENCES))).tokens == without + 2 * 3 * 4
