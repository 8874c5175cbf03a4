"""Fitting the shipped workflow to a run."""

import json
from pathlib import Path

import pytest
from comfyui_wanvideo.tools.development.console import DevError
from comfyui_wanvideo.tools.development.workflow import Changes, changed, read_prompt

SHIPPED = Path(__file__).resolve().parents[3] / "example_workflows" / "api" / "t2v.json"


def inputs_of(prompt, class_type):
    (node,) = [node for node in prompt.values() if node["class_type"] == class_type]
    return node["inputs"]


def test_every_change_reaches_the_shipped_workflow():
    changes = Changes("a", "b", "c", width=64, height=48, frames=5, steps=2, seed=7, text="snow")
    prompt = changed(read_prompt(SHIPPED), changes)
    assert inputs_of(prompt, "WanVideoModelLoader")["model"] == "a"
    assert inputs_of(prompt, "LoadWanVideoT5TextEncoder")["model_name"] == "b"
    assert inputs_of(prompt, "WanVideoVAELoader")["model_name"] == "c"
    size = inputs_of(prompt, "WanVideoEmptyEmbeds")
    assert (size["width"], size["height"], size["num_frames"]) == (64, 48, 5)
    assert (inputs_of(prompt, "WanVideoSampler")["steps"], inputs_of(prompt, "WanVideoSampler")["seed"]) == (
        2,
        7,
    )
    assert inputs_of(prompt, "WanVideoTextEncode")["positive_prompt"] == "snow"


def test_no_change_changes_nothing():
    prompt = read_prompt(SHIPPED)
    assert changed(prompt, Changes()) == prompt


def test_the_given_prompt_is_left_alone():
    prompt = read_prompt(SHIPPED)
    changed(prompt, Changes(steps=2))
    assert prompt == read_prompt(SHIPPED)


def test_a_change_that_no_node_takes_is_refused():
    prompt = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
    with pytest.raises(DevError, match=r"no input for steps \(WanVideoSampler\.steps\)"):
        changed(prompt, Changes(steps=2))


def test_a_workflow_of_the_user_interface_is_refused(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps({"nodes": [], "links": []}))
    with pytest.raises(DevError, match="not in API format"):
        read_prompt(tmp_path / "w.json")
