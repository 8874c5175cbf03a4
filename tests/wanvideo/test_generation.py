"""A whole run of the engine on a small random transformer."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import FamilyInput
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.text import TextEmbeds
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.generation import GenerationRequest, InitialVideo, generate, plan_generation
from comfyui_wanvideo.wanvideo.sampling.sampler import NotFiniteError
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

from .transformer.conftest import CONFIG, random_transformer, relative_error

STEPS = 6
ONE_STEP_SOLVERS = ("euler", "lcm")
MULTISTEP_SOLVERS = ("unipc", "dpm++", "dpm++_sde")


@pytest.fixture(scope="module")
def model():
    return random_transformer()


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, CONFIG.text_width, generator=torch.Generator().manual_seed(seed))


TEXT = TextEmbeds((rows(9, 0),), (rows(5, 1),))


def request(scheduler: str = "euler", **changes) -> GenerationRequest:
    schedule = build_schedule(scheduler, STEPS, 5.0)
    base = GenerationRequest(
        geometry=VideoGeometry(64, 48, 5),
        text=TEXT,
        schedule=schedule,
        steps=(0, schedule.steps),
        cfg=4.0,
        seed=7,
    )
    return replace(base, **changes)


def run(model, wanted: GenerationRequest, **options):
    return generate(model, wanted, RunOptions(attention=sdpa, **options), device="cpu")


def chained(model, scheduler: str, history: str, **changes):
    """Two runs in a row, the second going on where the first stopped."""
    first = run(model, request(scheduler, steps=(0, 3), solver_history=history, **changes))
    initial = InitialVideo(
        first.latent, generator_state=first.generator_state, solver_state=first.solver_state
    )
    last = request(scheduler, steps=(3, STEPS), initial=initial, solver_history=history, **changes)
    return run(model, last)


@pytest.mark.parametrize("scheduler", ONE_STEP_SOLVERS)
def test_two_chained_samplers_equal_one(model, scheduler):
    whole = run(model, request(scheduler))
    assert relative_error(chained(model, scheduler, "restart").latent, whole.latent) <= 1e-5


@pytest.mark.parametrize("scheduler", [*ONE_STEP_SOLVERS, *MULTISTEP_SOLVERS])
def test_two_chained_samplers_that_continue_equal_one_for_every_solver(model, scheduler):
    whole = run(model, request(scheduler, solver_history="continue"))
    assert relative_error(chained(model, scheduler, "continue").latent, whole.latent) <= 1e-5


def test_the_same_request_gives_the_same_latent_bit_for_bit(model):
    assert torch.equal(run(model, request("unipc")).latent, run(model, request("unipc")).latent)


def test_another_seed_gives_another_latent(model):
    assert relative_error(run(model, request(seed=8)).latent, run(model, request()).latent) > 0.1


def test_cfg_1_needs_no_negative_prompt_and_ignores_it(model):
    without = TextEmbeds(TEXT.prompt_embeds)
    assert torch.equal(run(model, request(cfg=1.0, text=without)).latent, run(model, request(cfg=1.0)).latent)


def test_a_list_of_cfg_of_one_value_equals_the_value(model):
    assert torch.equal(run(model, request(cfg=[4.0] * STEPS)).latent, run(model, request()).latent)


def test_equal_prompts_are_evaluated_once():
    same = TextEmbeds(TEXT.prompt_embeds, TEXT.prompt_embeds)
    plan = plan_generation(request(text=same))
    assert plan.guidance.evaluations(0) == 1


def test_the_latent_leaves_in_the_space_of_the_vae(model):
    """One step from pure noise with cfg 1: x0 = noise - velocity, un-normalised by hand."""
    found = run(model, request(cfg=1.0, steps=(0, 1)))
    space = latent_space_for(16)
    normalised = space.normalise(found.latent)
    assert torch.allclose(space.denormalise(normalised), found.latent, atol=1e-5)
    assert normalised.std() < found.latent.std()


def test_samples_with_noise_at_the_first_step_of_the_whole_schedule_hardly_matter(model):
    other = InitialVideo(torch.randn(1, 16, 2, 6, 8), add_noise=True)
    assert relative_error(run(model, request(initial=other)).latent, run(model, request()).latent) < 1e-3


def test_samples_of_another_size_are_refused_with_both_sizes(model):
    wrong = InitialVideo(torch.randn(1, 16, 2, 8, 8))
    with pytest.raises(InputError, match="samples"):
        run(model, request(initial=wrong))


def test_samples_of_the_other_vae_are_refused(model):
    with pytest.raises(InputError, match="48"):
        run(model, request(initial=InitialVideo(torch.randn(1, 48, 2, 6, 8))))


def test_text_of_another_width_is_refused_with_both_widths(model):
    wrong = TextEmbeds((torch.randn(4, 32),), (torch.randn(4, 32),))
    with pytest.raises(InputError, match=r"text_embeds: .*32.*64"):
        run(model, request(text=wrong))


def test_cfg_without_a_negative_prompt_is_refused(model):
    with pytest.raises(InputError, match="negative prompt"):
        run(model, request(text=TextEmbeds(TEXT.prompt_embeds)))


def test_a_model_that_takes_image_channels_is_refused_without_them():
    image_model = random_transformer(replace(CONFIG, in_channels=36))
    with pytest.raises(InputError, match=r"image_embeds: .*36 channels"):
        run(image_model, request())


def test_an_input_of_a_family_the_model_does_not_have_is_refused_by_name(model):
    with pytest.raises(InputError, match=r"image_embeds: .*ReCamMaster"):
        run(model, request(inputs={"ReCamMaster": FamilyInput()}))


def test_nan_in_the_prediction_is_said_at_its_step(model):
    calls = []

    def broken(query, key, value):
        calls.append(1)
        return sdpa(query, key, value) * (float("nan") if len(calls) > 2 * 2 * CONFIG.layers else 1.0)

    with pytest.raises(NotFiniteError, match="step 3 of 6"):
        generate(model, request(cfg=1.0), RunOptions(attention=broken), device="cpu")


def test_an_interrupt_leaves_a_model_that_works(model):
    whole = run(model, request())
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, request(), check=stop)
    assert torch.equal(run(model, request()).latent, whole.latent)


def test_the_mask_keeps_what_it_covers_close_to_the_original(model):
    space = latent_space_for(16)
    original = space.denormalise(torch.randn(1, 16, 2, 6, 8))
    mask = torch.ones(2, 6, 8)
    mask[..., :4] = 0.0
    free = run(model, request(initial=InitialVideo(original, add_noise=True)))
    kept = run(model, request(initial=InitialVideo(original, add_noise=True, mask=mask)))
    near = (kept.latent - original)[..., :4].norm()
    assert near < 0.5 * (free.latent - original)[..., :4].norm()


def test_a_bf16_run_is_close_to_fp32(model):
    low = random_transformer()
    for module in low.modules():
        if getattr(module, "parameter_dtype", "compute") == "compute":
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
    assert relative_error(run(low, request("euler")).latent, run(model, request("euler")).latent) < 5e-2


@dataclass(frozen=True)
class Led(FamilyInput):
    """Puts a frame in front of the video."""

    uses_model: ClassVar[bool] = False

    @property
    def leading_frames(self):
        return 1


def test_leading_frames_are_sampled_with_the_video_and_told_to_the_decoder(model):
    result = run(model, request(inputs={"led": Led()}))
    assert (result.latent.shape[2], result.decode.leading_frames) == (3, 1)


def test_an_inpainting_mask_goes_with_leading_frames(model):
    samples = InitialVideo(torch.randn(1, 16, 2, 6, 8), add_noise=True, mask=torch.zeros(1, 6, 8))
    result = run(model, request(initial=samples, inputs={"led": Led()}))
    assert result.latent.shape[2] == 3


def test_leading_frames_are_handed_over_to_the_next_sampler(model):
    whole = run(model, request("euler", inputs={"led": Led()}))
    two = chained(model, "euler", "restart", inputs={"led": Led()})
    assert relative_error(two.latent, whole.latent) <= 1e-5
