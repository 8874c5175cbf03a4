"""torch.compile of a model with VACE."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.transformer.program import CompileSettings, compile_program

from .conftest import context_of, evaluation, relative_error, run_state, setup_of


class Counting:
    """A backend that runs a graph as it is and counts graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example_inputs):
        del example_inputs
        self.graphs += 1
        return graph.forward


@pytest.fixture
def backend():
    torch._dynamo.reset()
    yield Counting()
    torch._dynamo.reset()


def test_its_blocks_need_no_graph_beside_those_of_the_model(model, backend):
    program = compile_program(CompileSettings(backend=backend, fullgraph=True), "cpu")
    one, context = evaluation(), context_of().prepared(setup_of(model))
    with program.scope():
        one(model, run=run_state(program=program))
        before = backend.graphs
        found = one(model, context, run=run_state(program=program))
    assert before > 0
    assert backend.graphs == before
    assert relative_error(found, one(model, context)) <= 1e-6
