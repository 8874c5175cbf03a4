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


class Compiled:
    """Forwards whose row functions are compiled, and how many graphs that took."""

    def __init__(self, **settings):
        self.backend = Counting()
        settings = CompileSettings(backend=self.backend, fullgraph=True, **settings)
        self.program = compile_program(settings, "cpu")

    def __call__(self, model, inputs, **options):
        with self.program.scope():
            return forward(model, inputs, program=self.program, **options)

    @property
    def graphs(self):
        return self.backend.graphs


@pytest.fixture
def fresh():
    """Nothing is compiled yet."""
    torch._dynamo.reset()
    return Compiled()


@pytest.fixture(scope="module")
def warm(model):
    """Every graph of the model was made."""
    torch._dynamo.reset()
    compiled = Compiled()
    compiled(model, video(3, 6, 10))
    yield compiled
    torch._dynamo.reset()


def video(*size, text=11, batch=1, timestep=637.25):
    return Inputs(torch.randn(batch, 16, *size), timestep, torch.randn(text, CONFIG.text_width))


def linears(model):
    return [layer for layer in model.blocks.modules() if isinstance(layer, WanLinear)]


@pytest.mark.parametrize("row_chunks", [1, 4])
def test_compiled_equals_eager(model, inputs, warm, row_chunks):
    assert relative_error(warm(model, inputs, row_chunks=row_chunks), forward(model, inputs)) <= 1e-6


def test_timesteps_prompts_sizes_chunks_and_batches_need_no_new_graph(model, warm):
    before = warm.graphs
    for size in ((5, 8, 10), (1, 32, 32), (2, 32, 32), (3, 2, 2), (1, 2, 2)):
        for row_chunks in (1, 3):
            warm(model, video(*size), row_chunks=row_chunks)
            warm(model, video(*size, text=64, batch=2, timestep=5.0), row_chunks=row_chunks)
    assert warm.graphs == before


def test_a_timestep_per_frame_needs_no_new_graph(model, inputs, warm):
    before = warm.graphs
    with torch.inference_mode(), warm.program.scope():
        model(inputs.latent, [0.0, 500.0, 999.0], inputs.conditioning, run_state(program=warm.program))
    assert warm.graphs == before


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
def test_weights_that_move_need_no_new_graph(inputs, warm, move):
    model, before = random_transformer(), warm.graphs
    move(model)
    warm(model, inputs)
    assert warm.graphs == before


def test_a_second_model_of_the_same_sizes_needs_no_new_graph(inputs, warm):
    before = warm.graphs
    warm(random_transformer(seed=1), inputs)
    assert warm.graphs == before


def test_weights_stored_in_other_dtypes_need_no_new_graph(inputs, warm):
    model, before = random_transformer(), warm.graphs
    for layer in linears(model)[::2]:
        layer.weight.data = layer.weight.data.bfloat16()
    warm(model, inputs)
    assert warm.graphs == before


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


def test_strengths_in_tensors_keep_their_effect(inputs, warm):
    warm(with_strength(random_transformer(), 1.0), inputs)
    model = with_strength(random_transformer(), 0.5)
    assert relative_error(warm(model, inputs), forward(model, inputs)) <= 1e-6


@pytest.mark.parametrize("options", [{"rms_norm": "pytorch"}, {"rope": RopeOptions(function="default")}])
def test_every_arithmetic_compiles_to_the_same_result(model, inputs, warm, options):
    assert relative_error(warm(model, inputs, **options), forward(model, inputs, **options)) <= 1e-6


@pytest.mark.usefixtures("warm")
def test_a_backend_that_works_has_no_problem():
    assert probe(CompileSettings(backend=Counting()), "cpu") is None


def test_a_format_with_its_own_product_makes_one_set_of_graphs_for_all_strengths(inputs, fresh):
    for strength in (1.0, 0.5, 0.25):
        fresh(with_strength(random_transformer(), strength), inputs)
    assert fresh.graphs == GRAPHS


def test_two_widths_in_one_process_make_a_set_of_graphs_each(inputs, fresh):
    small, wide = random_transformer(), random_transformer(replace(CONFIG, dim=384, heads=3))
    for model in (small, wide, small, wide):
        fresh(model, inputs)
    assert fresh.graphs == 2 * GRAPHS


def test_with_every_size_open_two_widths_share_the_graphs(inputs):
    torch._dynamo.reset()
    compiled = Compiled(dynamic=True)
    for model in (random_transformer(), random_transformer(replace(CONFIG, dim=384, heads=3))):
        compiled(model, inputs)
    assert compiled.graphs == GRAPHS


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
def test_a_backend_that_fails_is_explained(error, sentence):
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


class Failing:
    """A compiler that does not know what to do with a graph."""

    def __init__(self):
        self.asked = 0

    def __call__(self, graph, example_inputs):
        self.asked += 1
        raise RuntimeError("no kernel for this graph")


@pytest.fixture
def stuck():
    torch._dynamo.reset()
    yield Failing()
    torch._dynamo.reset()


def test_what_the_compiler_fails_on_runs_as_it_is(stuck, model, inputs):
    program = compile_program(CompileSettings(backend=stuck), "cpu")
    with program.scope():
        found = forward(model, inputs, program=program)
    assert torch.equal(found, forward(model, inputs))


def test_a_failure_of_the_compiler_is_said_and_tried_once_per_function(stuck, model, inputs, caplog):
    program = compile_program(CompileSettings(backend=stuck), "cpu")
    with program.scope(), caplog.at_level(logging.WARNING):
        forward(model, inputs, program=program)
        forward(model, inputs, program=program)
    functions = ["keys_values", "queries", "add_projected", "feed_forward"]
    assert stuck.asked == len(functions)
    assert [record.getMessage().split()[1] for record in caplog.records] == functions
    assert all("no kernel for this graph" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("row_chunks", "tolerance"), [(1, 1e-6), (3, 1e-6)])
def test_inductor_gives_the_numbers_of_the_functions_as_they_are(model, inputs, row_chunks, tolerance):
    problem = probe(CompileSettings(), "cpu")
    if problem is not None:
        pytest.skip(f"inductor does not work here: {problem}")
    program = compile_program(CompileSettings(), "cpu")
    with program.scope():
        found = forward(model, inputs, program=program, row_chunks=row_chunks)
    assert relative_error(found, forward(model, inputs, row_chunks=row_chunks)) <= tolerance
