"""The server starts with the pack, and the harness sees what the nodes do."""

import re

import pytest
import torch


def test_the_pack_is_imported_without_an_error(comfy):
    assert comfy.server.import_failures() == []
    assert "are not available" not in comfy.server.log_since()


def test_no_line_of_the_log_at_start_blames_the_pack(comfy):
    blamed = [
        line
        for line in comfy.server.log_since().partition("got prompt")[0].splitlines()
        if re.search(r"ERROR|WARNING|Traceback", line) and re.search(r"wanvideo", line, re.IGNORECASE)
    ]
    assert blamed == []


def test_every_node_group_reaches_object_info(comfy):
    ours = {name for name, info in comfy.object_info().items() if "WanVideo" in info["python_module"]}
    expected = {"WanVideoModelLoader", "WanVideoSampler", "WanVideoVAELoader", "WanVideoTextEncode"}
    assert expected <= ours


def test_tensors_pass_through_the_server_unchanged(comfy):
    latent = torch.randn(1, 16, 3, 5, 7)
    run = comfy.run({"in": comfy.put_tensors(samples=latent)}, keep={"out": ["in", 0]})
    assert run.status == "success", run.message
    assert torch.equal(run.kept["out"].tensors["samples"], latent)


def test_an_unknown_node_is_refused_with_its_name(comfy):
    run = comfy.run({"x": {"class_type": "NoSuchNode", "inputs": {}}})
    assert run.status == "refused"
    assert "NoSuchNode" in run.message


def test_an_error_in_a_node_names_the_node(comfy):
    prompt = {"in": {"class_type": "TestTensors", "inputs": {"file": "absent"}}}
    run = comfy.run(prompt, keep={"out": ["in", 0]})
    assert run.status == "error"
    assert [(error.stage, error.node, error.class_type) for error in run.errors] == [
        ("execution", "in", "TestTensors")
    ]


@pytest.mark.parametrize("folder", ["diffusion_models", "text_encoders", "vae"])
def test_tiny_models_are_listed(comfy, folder):
    assert comfy.models(folder)
