"""Every shipped workflow runs through the queue, with tiny models under the names it asks for."""

import json
from collections.abc import Callable

import pytest
from comfyui_wanvideo.tools.examples.kinds import CONTROL_SUFFIX, KINDS
from comfyui_wanvideo.tools.examples.write import FOLDER, WORKFLOWS

from .example_files import (
    FRAMES,
    HIGH_STEPS,
    SIDE,
    STAND_INS,
    STEPS,
    provide_inputs,
    provide_models,
    read_video,
    small,
    write_video,
)
from .server import Run

BY_NAME = {workflow.name: workflow for workflow in WORKFLOWS}
# SeedVR2 and the interpolation network have no tiny files; how far that workflow comes is tested at the end.
RUNNABLE = [name for name, workflow in BY_NAME.items() if {m.name for m in workflow.models} <= set(STAND_INS)]
EXPERTS = [name for name in RUNNABLE if any(node.name == "model_high" for node in BY_NAME[name].nodes)]
MISSING_FRAMES = {"i2v_wan22_loop": 1}  # the last frame of the loop, which is the first one
RATES = {"ti2v_5b": 24}
CORE = ("nodes", "comfy_extras.")
LOADERS_OF_THE_UPSCALER = {"vae": "vae_name", "model": "unet_name", "film": "model_name"}


def api_prompt(name):
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def provided(comfy):
    provide_models(comfy.base / "models", WORKFLOWS)
    provide_inputs(comfy.base)
    return comfy


@pytest.fixture(scope="module")
def run_of(provided) -> Callable[[str], Run]:
    """The run of a workflow at a small size; each runs once."""
    finished: dict[str, Run] = {}

    def run(name: str) -> Run:
        if name not in finished:
            finished[name] = provided.run(small(api_prompt(name)))
        return finished[name]

    return run


def test_all_workflows_but_the_upscaler_run_here():
    assert set(BY_NAME) - set(RUNNABLE) == {"upscale_only"}


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_workflow_makes_a_video_of_its_size_and_length(run_of, comfy, name):
    run = run_of(name)
    assert run.status == "success", run.message
    (file,) = [file for file in run.result.files() if file.filename.endswith(".mp4")]
    frames, rate = read_video(comfy.output(file))
    assert frames.shape == (FRAMES - MISSING_FRAMES.get(name, 0), SIDE, SIDE, 3)
    assert rate == RATES.get(name, 16)


@pytest.mark.parametrize("name", RUNNABLE)
def test_nothing_about_the_workflow_is_worth_a_warning(run_of, name):
    """No input had to be resized, cut or left out."""
    warnings = [line for line in run_of(name).log.splitlines() if "WARNING" in line or "ERROR" in line]
    assert [line for line in warnings if "send error" not in line] == []  # of ComfyUI, about a closed socket


@pytest.mark.parametrize("name", EXPERTS)
def test_the_two_models_share_the_steps(run_of, name):
    run = run_of(name)
    assert run.progress("sampler_high")[-1] == (HIGH_STEPS, HIGH_STEPS)
    assert run.progress("sampler")[-1] == (STEPS - HIGH_STEPS, STEPS - HIGH_STEPS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_node_is_ours_or_of_core_and_has_what_the_workflows_give_it(comfy, kind):
    found = comfy.object_info()[kind]
    module = found["python_module"]
    assert module.startswith(CORE) or "WanVideo" in module
    sockets, widgets = inputs_of(found)
    for name, wanted in KINDS[kind].sockets.items():
        assert set(wanted.split(",")) <= set(sockets[name].split(",")), name
    ours = [name for name in KINDS[kind].widgets if not name.endswith(CONTROL_SUFFIX)]
    assert widgets[: len(ours)] == ours
    outputs = list(KINDS[kind].outputs.values())
    assert found["output"][: len(outputs)] == outputs


def test_the_seed_is_the_only_widget_with_a_control(comfy):
    """The browser saves a value more for such a widget, and the values are read by position."""
    for kind in KINDS:
        found = comfy.object_info()[kind]
        entries = {**found["input"].get("required", {}), **found["input"].get("optional", {})}
        controlled = {
            name
            for name, entry in entries.items()
            if len(entry) > 1 and entry[1].get("control_after_generate") and name in KINDS[kind].widgets
        }
        assert {name + CONTROL_SUFFIX for name in controlled} == {
            name for name in KINDS[kind].widgets if name.endswith(CONTROL_SUFFIX)
        }, kind


def test_the_upscaler_lacks_nothing_but_its_models(provided):
    """It can not run here: there are no tiny files of SeedVR2 and of the interpolation network. Without them
    the queue refuses it for the three files, and for nothing else: nodes, links and values are right."""
    prompt = api_prompt("upscale_only")
    for name, loader in LOADERS_OF_THE_UPSCALER.items():
        prompt[name]["inputs"][loader] = "absent.safetensors"
    run = provided.run(prompt)
    assert run.status == "refused"
    assert {(error.node, error.kind) for error in run.errors} == {
        (name, "value_not_in_list") for name in LOADERS_OF_THE_UPSCALER
    }


def inputs_of(found):
    """Type by name of every socket, and the names of the widgets, of a node as the server tells it."""
    sockets, widgets = {}, []
    for section in ("required", "optional"):
        for name in found["input_order"].get(section, []):
            kind, *options = found["input"][section][name]
            is_widget = (
                isinstance(kind, list)
                or kind in {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
                or kind.startswith("COMFY_DYNAMICCOMBO")
            )
            if is_widget and not (options and options[0].get("forceInput")):
                widgets.append(name)
            else:
                sockets[name] = kind
    return sockets, widgets


def test_the_upscaler_takes_a_video_where_the_first_step_saved_it(provided):
    video = "video/WanVideo_i2v_only_00001_.mp4"
    write_video(provided.base / "output" / video)
    prompt = {
        name: node for name, node in api_prompt("upscale_only").items() if name in {"video_file", "frames"}
    }
    prompt["video_file"]["inputs"]["file"] = f"{video} [output]"
    run = provided.run(prompt, keep={"frames": ["frames", 0]})
    assert run.status == "success", run.message
    assert len(run.kept["frames"].tensor) == 12
