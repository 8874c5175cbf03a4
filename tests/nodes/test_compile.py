"""Settings of torch.compile, and what happens when it does not work."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.transformer.program import EAGER, CompileSettings


@pytest.fixture
def compile_nodes(node_module):
    return node_module("compile")


@pytest.fixture
def model_run(node_module):
    return node_module("model_run")


INPUTS = {
    "backend": "inductor",
    "fullgraph": True,
    "mode": "max-autotune-no-cudagraphs",
    "dynamic": False,
    "dynamo_cache_size_limit": 32,
    "compile_transformer_blocks_only": True,
}


def test_the_inputs_become_settings(compile_nodes):
    found = compile_nodes.WanVideoTorchCompileSettings.run(**INPUTS, dynamo_recompile_limit=99).result[0]
    assert found == CompileSettings(
        backend="inductor",
        mode="max-autotune-no-cudagraphs",
        fullgraph=True,
        dynamic=False,
        recompile_limit=99,
        cache_size_limit=32,
    )


def test_the_dict_of_another_pack_is_read(compile_nodes):
    found = compile_nodes.as_compile_settings({**INPUTS, "dynamo_recompile_limit": 64})
    assert isinstance(found, CompileSettings)


def test_anything_else_on_the_socket_is_refused(compile_nodes):
    with pytest.raises(InputError, match="compile_args"):
        compile_nodes.as_compile_settings(3)


def test_without_settings_nothing_is_compiled(load_model, model_run):
    assert model_run.chosen_program(load_model()) is EAGER


def test_a_backend_that_works_is_used(load_model, model_run):
    model = replace(load_model(), compiling=CompileSettings(backend="eager"))
    assert model_run.chosen_program(model) is not EAGER


def test_the_same_settings_give_the_same_program_so_that_nothing_is_compiled_again(load_model, model_run):
    model = replace(load_model(), compiling=CompileSettings(backend="aot_eager"))
    assert model_run.chosen_program(model) is model_run.chosen_program(model)


def test_a_compiler_that_does_not_work_is_said_and_the_run_goes_on_without(
    load_model, model_run, monkeypatch, caplog
):
    monkeypatch.setattr(model_run, "probe", lambda _settings, _device: "there is no compiler")
    model = replace(load_model(), compiling=CompileSettings())
    assert model_run.chosen_program(model) is EAGER
    assert "tiny.safetensors: torch.compile is not used: there is no compiler" in caplog.text


def test_limits_are_put_back_after_the_run(load_model, model_run):
    model = replace(load_model(), compiling=CompileSettings(backend="eager", recompile_limit=77))
    before = torch._dynamo.config.recompile_limit
    with model_run.chosen_program(model).scope():
        assert torch._dynamo.config.recompile_limit == 77
    assert torch._dynamo.config.recompile_limit == before
