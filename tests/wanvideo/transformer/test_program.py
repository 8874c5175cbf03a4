"""torch.compile of the row functions: one graph each, whatever changes, and the settings put back."""

import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.transformer import program as programs
from comfyui_wanvideo.wanvideo.transformer.program import (
    CompileSettings,
    compile_program,
    compile_scope,
    probe,
)
from comfyui_wanvideo.wanvideo.transformer.rope import RopeOptions
from comfyui_wanvideo.wanvideo.weights.formats import WeightFormat
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear

from .conftest import CONFIG, Inputs, forward, random_transformer, relative_error, run_state

# keys and values, queries of self- and of cross-attention, output layers of both, feed-forward
GRAPHS = 6


class Counting:
    """A backend that runs a graph as it is and counts graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example_inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend():
    torch._dynamo.reset()
    yield Counting()
    torch._dynamo.reset()


@pytest.fixture
def compiled(backend):
    """Run a forward compiled with the counting backend."""
    program = compile_program(CompileSettings(backend=backend, fullgraph=True), "cpu")

    def run(model, inputs, **options):
        with program.scope():
            return forward(model, inputs, program=program, **options)

    return run


def video(*size, text=11, batch=1, timestep=637.25):
    return Inputs(torch.randn(batch, 16, *size), timestep, torch.randn(text, CONFIG.text_width))


def linears(model):
    return [layer for layer in model.blocks.modules() if isinstance(layer, WanLinear)]


@pytest.mark.parametrize("row_chunks", [1, 4])
def test_compiled_equals_eager(model, inputs, compiled, row_chunks):
    assert relative_error(compiled(model, inputs, row_chunks=row_chunks), forward(model, inputs)) <= 1e-6


def test_a_forward_makes_six_graphs_for_all_blocks(model, inputs, compiled, backend):
    compiled(model, inputs)
    assert backend.graphs == GRAPHS


def test_timesteps_prompts_sizes_chunks_and_batches_share_the_graphs(model, compiled, backend):
    for size in ((3, 6, 10), (5, 8, 10), (1, 32, 32), (2, 32, 32), (3, 2, 2), (1, 2, 2)):
        for row_chunks in (1, 3):
            compiled(model, video(*size), row_chunks=row_chunks)
            compiled(model, video(*size, text=64, batch=2, timestep=5.0), row_chunks=row_chunks)
    assert backend.graphs == GRAPHS


def test_a_timestep_per_frame_shares_the_graphs(model, inputs, compiled, backend):
    compiled(model, inputs)
    program = compile_program(CompileSettings(backend=backend), "cpu")
    with torch.inference_mode(), program.scope():
        model(inputs.latent, [0.0, 500.0, 999.0], inputs.conditioning, run_state(program=program))
    assert backend.graphs == GRAPHS


def repoint(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def put_into_a_slab(model):
    slab = torch.cat([parameter.data.flatten() for parameter in model.parameters()])
    start = 0
    for parameter in model.parameters():
        parameter.data = slab[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()


def make_anew_in_inference_mode(model):
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()


def replace_parameters(model):
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, torch.nn.Parameter(value.data.clone(), requires_grad=False))


@pytest.mark.parametrize(
    "move",
    [repoint, put_into_a_slab, make_anew_in_inference_mode, replace_parameters],
    ids=lambda f: f.__name__,
)
def test_weights_that_move_share_the_graphs(inputs, compiled, backend, move):
    model = random_transformer()
    compiled(model, inputs)
    move(model)
    compiled(model, inputs)
    assert backend.graphs == GRAPHS


def test_a_second_model_of_the_same_sizes_shares_the_graphs(model, inputs, compiled, backend):
    compiled(model, inputs)
    compiled(random_transformer(seed=1), inputs)
    assert backend.graphs == GRAPHS


def test_weights_stored_in_other_dtypes_share_the_graphs(inputs, compiled, backend):
    model = random_transformer()
    compiled(model, inputs)
    for layer in linears(model)[::2]:
        layer.weight.data = layer.weight.data.bfloat16()
    compiled(model, inputs)
    assert backend.graphs == GRAPHS


@dataclass(frozen=True)
class ScaledLinear:
    """A layer whose product is its own, and whose strength is a tensor."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    strength: torch.Tensor

    def __call__(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias) * self.strength


@dataclass(frozen=True)
class ScaledProduct(WeightFormat):
    name: str = "scaled product"

    def prepare(self, stored, bias, dtype):
        return ScaledLinear(stored["weight"], bias, stored["strength"])


def with_strength(model, strength):
    for layer in linears(model):
        layer.store_as(ScaledProduct(), {"weight": layer.weight.data, "strength": torch.tensor(strength)})
    return model


def test_a_format_with_its_own_product_makes_one_set_of_graphs_for_all_strengths(inputs, compiled, backend):
    for strength in (1.0, 0.5, 0.25):
        compiled(with_strength(random_transformer(), strength), inputs)
    assert backend.graphs == GRAPHS


def test_strengths_in_tensors_keep_their_effect(inputs, compiled):
    model = with_strength(random_transformer(), 0.5)
    compiled(with_strength(random_transformer(), 1.0), inputs)
    assert relative_error(compiled(model, inputs), forward(model, inputs)) <= 1e-6


@pytest.mark.parametrize("options", [{"rms_norm": "pytorch"}, {"rope": RopeOptions(function="default")}])
def test_every_arithmetic_compiles_to_the_same_result(model, inputs, compiled, options):
    assert relative_error(compiled(model, inputs, **options), forward(model, inputs, **options)) <= 1e-6


def test_two_widths_in_one_process_keep_their_static_graphs(model, inputs, compiled, backend):
    wide = random_transformer(replace(CONFIG, dim=384, heads=3))
    for each in (model, wide, model, wide):
        compiled(each, inputs)
    assert backend.graphs == 2 * GRAPHS


def test_with_all_sizes_dynamic_a_second_width_makes_no_new_graphs(model, inputs, backend):
    program = compile_program(CompileSettings(backend=backend, dynamic=True), "cpu")
    for each in (model, random_transformer(replace(CONFIG, dim=384, heads=3))):
        with program.scope():
            forward(each, inputs, program=program)
    assert backend.graphs == GRAPHS


def limit():
    config = torch._dynamo.config
    return config.recompile_limit if hasattr(config, "recompile_limit") else config.cache_size_limit


def test_the_limits_hold_within_the_scope_only():
    before = limit()
    with compile_scope(CompileSettings(recompile_limit=321)):
        assert limit() == 321
    assert limit() == before


def test_the_limits_are_put_back_after_an_error():
    before = limit()
    with pytest.raises(KeyboardInterrupt), compile_scope(CompileSettings(recompile_limit=321)):
        raise KeyboardInterrupt
    assert limit() == before


def test_a_backend_that_works_has_no_problem(backend):
    assert probe(CompileSettings(backend=backend), "cpu") is None


def failing(error: Exception) -> Callable[..., object]:
    def backend(graph, example_inputs):
        raise error

    return backend


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("Cannot find a working triton installation."), "install triton"),
        (RuntimeError("Failed to find C compiler. Please specify via CC"), "finds no C compiler"),
        (RuntimeError("No working C++ compiler found in cpp.cxx"), "no C++ compiler"),
        (RuntimeError("type fp8e4nv not supported in this architecture"), "no fp8 (e4m3) arithmetic"),
        (subprocess.CalledProcessError(1, ["gcc"], "Python.h: No such file"), "the compiler failed"),
        (OSError("disk full"), "disk full"),
    ],
)
def test_a_backend_that_fails_is_explained(backend, error, sentence):
    found = probe(CompileSettings(backend=failing(error)), "cpu")
    assert found is not None
    assert sentence in found


def test_an_unknown_backend_is_explained():
    found = probe(CompileSettings(backend="nonexistent"), "cpu")
    assert found == "PyTorch has no such backend; choose inductor"


@pytest.mark.parametrize(
    ("backend", "mode", "used"),
    [
        ("cudagraphs", "default", ("inductor", "default")),
        ("inductor", "reduce-overhead", ("inductor", "default")),
        ("inductor", "max-autotune", ("inductor", "max-autotune-no-cudagraphs")),
        ("inductor", "default", ("inductor", "default")),
    ],
)
def test_cuda_graphs_are_replaced(backend, mode, used):
    settings = CompileSettings(backend=backend, mode=mode).without_cuda_graphs()
    assert (settings.backend, settings.mode) == used


def test_replaced_cuda_graphs_are_said_once(caplog):
    with caplog.at_level(logging.INFO, logger=programs.__name__):
        compile_program(CompileSettings(mode="reduce-overhead"), "cuda")
    assert [record.levelname for record in caplog.records] == ["INFO"]
