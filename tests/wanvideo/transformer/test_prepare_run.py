"""Text and timesteps are embedded once per run."""

from dataclasses import replace

import pytest
import torch

from .conftest import forward, random_transformer, relative_error, run_state
from .test_points import NAME, ExampleInput, fill

TIMESTEPS = (999.0, 637.25, 0.0)


@pytest.fixture
def counted():
    """A model, and how often each embedder ran."""
    model, calls = random_transformer(), []
    for name in ("time_embedding", "time_projection", "text_embedding"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    return model, calls


@torch.inference_mode()
def test_each_embedder_runs_once_whatever_the_number_of_steps(counted, inputs):
    model, calls = counted
    run = run_state()
    model.prepare_run(run, TIMESTEPS, [inputs.conditioning])
    for timestep in TIMESTEPS:
        model(inputs.latent, [timestep], inputs.conditioning, run)
    assert calls == ["time_embedding", "time_projection", "text_embedding"]


@torch.inference_mode()
def test_a_prepared_run_predicts_the_same_within_rounding(model, inputs):
    run = run_state()
    model.prepare_run(run, TIMESTEPS, [inputs.conditioning])
    found = model(inputs.latent, [inputs.timestep], inputs.conditioning, run)
    assert relative_error(found, forward(model, inputs)) <= 1e-6


@torch.inference_mode()
def test_a_timestep_the_plan_did_not_name_is_embedded_when_it_comes(counted, inputs):
    model, calls = counted
    run = run_state()
    model.prepare_run(run, (999.0,), [inputs.conditioning])
    calls.clear()
    for _ in range(2):
        model(inputs.latent, [inputs.timestep], inputs.conditioning, run)
    assert calls == ["time_embedding", "time_projection"]


@torch.inference_mode()
def test_equal_timesteps_of_a_plan_are_embedded_as_one(model, inputs):
    run = run_state()
    seen = []
    handle = model.time_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    model.prepare_run(run, (999.0, 5.0, 5.0), [inputs.conditioning])
    handle.remove()
    assert seen == [2]


@torch.inference_mode()
def test_a_prepared_run_with_a_time_edit_equals_one_that_was_not_prepared(inputs):
    model = random_transformer()
    fill(model, "time")
    conditioning = replace(inputs.conditioning, inputs={NAME: ExampleInput(strength=2.0)})
    run = run_state()
    model.prepare_run(run, TIMESTEPS, [conditioning])
    found = model(inputs.latent, [inputs.timestep], conditioning, run)
    expected = model(inputs.latent, [inputs.timestep], conditioning, run_state())
    assert relative_error(found, expected) <= 1e-6


@torch.inference_mode()
def test_the_host_is_told_that_the_embedders_may_go(model, inputs):
    told = []
    model.prepare_run(run_state(on_prepared=lambda: told.append(True)), TIMESTEPS, [inputs.conditioning])
    assert told == [True]


@torch.inference_mode()
def test_the_host_is_not_told_while_a_family_edits_the_time_embedding(inputs):
    model, told = random_transformer(), []
    fill(model, "time")
    conditioning = replace(inputs.conditioning, inputs={NAME: ExampleInput()})
    model.prepare_run(run_state(on_prepared=lambda: told.append(True)), TIMESTEPS, [conditioning])
    assert not told


@torch.inference_mode()
def test_the_embedders_weights_are_not_read_after_the_run_was_prepared(inputs):
    model, run = random_transformer(), run_state()
    expected = forward(model, inputs)
    model.prepare_run(run, (inputs.timestep,), [inputs.conditioning])
    for embedder in (model.time_embedding, model.time_projection, model.text_embedding):
        for parameter in embedder.parameters():
            parameter.data = torch.full_like(parameter, float("nan"))
    found = model(inputs.latent, [inputs.timestep], inputs.conditioning, run)
    assert relative_error(found, expected) <= 1e-6
