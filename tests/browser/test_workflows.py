"""Every shipped workflow opens without complaint in the real frontend; some run from its "Run" button."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pytest
from comfyui_wanvideo.tools.development.layout import PACK_NAME
from comfyui_wanvideo.tools.examples.write import FOLDER, WORKFLOWS

from ..comfyui.example_files import (
    FRAMES,
    SIDE,
    STAND_INS,
    provide_inputs,
    provide_models,
    smaller,
)
from .frontend import Frontend

BY_NAME = {workflow.name: workflow for workflow in WORKFLOWS}
FRAMES_PER_SECOND = 16

workflows = pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))


@dataclass(frozen=True)
class Opened:
    """What a workflow looks like in the frontend."""

    complaints: list[str]
    nodes: list[dict[str, Any]]
    prompt: dict[str, Any]


@pytest.fixture(scope="module")
def provisioned(comfy):
    """The server with tiny models under the names that the workflows ask for: a user who has the files."""
    models = comfy.base / "models"
    provide_models(models, WORKFLOWS)
    provide_inputs(comfy.base)
    for model in {model for workflow in WORKFLOWS for model in workflow.models}:
        if model.name not in STAND_INS:  # never loaded here, only listed
            path = models / model.directory / model.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return comfy


@pytest.fixture
def frontend(page, provisioned):
    return Frontend(page, provisioned)


@pytest.fixture(scope="module")
def opened(browser, provisioned) -> Iterator[Callable[[str], Opened]]:
    """What a workflow looks like when it is opened; each is opened once, all in one page."""
    found: dict[str, Opened] = {}
    clean: list[Frontend] = []

    def open_(name: str) -> Opened:
        if name not in found:
            frontend = clean.pop() if clean else Frontend(browser.new_page(), provisioned)
            frontend.load(read(name))
            found[name] = Opened(frontend.complaints(), frontend.nodes(), frontend.prompt())
            if found[
                name
            ].complaints:  # the browser remembers the workflow: the next one gets a profile of its own
                frontend.page.close()
            else:
                clean.append(frontend)
        return found[name]

    yield open_
    for frontend in clean:
        frontend.page.close()


@workflows
def test_workflow_opens_without_a_complaint(opened, name):
    assert opened(name).complaints == []


@workflows
def test_api_twin_is_what_the_frontend_exports(opened, name):
    twin = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    exported = opened(name).prompt
    ours, theirs = outputs(twin), outputs(exported)
    assert [twin[node]["class_type"] for node in ours] == [exported[node]["class_type"] for node in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert differences(twin, a, exported, b) == []


@workflows
def test_no_node_of_the_workflow_covers_another(opened, name):
    covered = [
        f"{a['type']} and {b['type']}"
        for a, b in combinations(opened(name).nodes, 2)
        if overlap(a["box"], b["box"])
    ]
    assert covered == []


@pytest.mark.parametrize("name", ["t2v", "i2v_wan21"])
def test_workflow_runs_and_shows_its_video(frontend, name):
    frontend.load(read(name))
    changes = small_values(name)
    assert frontend.set_widgets(changes) >= len(changes) > 2
    assert frontend.run(seconds=180)[0] == "execution_success"
    video = frontend.shown_video()
    assert (video["width"], video["height"]) == (SIDE, SIDE)
    assert video["seconds"] == pytest.approx(FRAMES / FRAMES_PER_SECOND, abs=0.01)
    assert frontend.complaints() == []


def test_a_sampler_saved_with_an_empty_value_after_its_last_widget_runs(frontend):
    """Graphs of the predecessor have it; it falls on the first widget appended since."""
    graph = read("t2v")
    (sampler,) = [node for node in graph["nodes"] if node["type"] == "WanVideoSampler"]
    del sampler["widgets_values"][-1]  # the appended one
    sampler["widgets_values"].append("")
    frontend.load(graph)
    frontend.set_widgets(small_values("t2v"))
    assert frontend.run(seconds=180)[0] == "execution_success"
    assert frontend.complaints() == []


def test_an_unknown_node_is_a_complaint(frontend):
    """What the tests above look for is really shown: the same workflow with a node nobody has."""
    workflow = read("t2v")
    workflow["nodes"][0]["type"] = "NoSuchNode"
    frontend.load(workflow)
    assert "unknown node NoSuchNode" in frontend.complaints()
    assert any(text.startswith("Missing node: NoSuchNode") for text in frontend.complaints())


def test_templates_offer_the_workflows_and_not_their_api_twins(comfy):
    offered = comfy.client.get("/workflow_templates")[PACK_NAME]
    assert sorted(offered) == sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def small_values(name: str) -> list[tuple[str, str, Any]]:
    """The widgets that make a run short, as (node class, widget, value)."""
    return [
        (node.kind, widget, smaller(widget, value))
        for node in BY_NAME[name].nodes
        for widget, value in node.widgets.items()
        if smaller(widget, value) != value and widget not in node.links
    ]


def outputs(prompt: dict[str, Any]) -> list[str]:
    """The nodes that nobody takes anything from, by class."""
    values = [value for node in prompt.values() for value in node["inputs"].values()]
    used = {value[0] for value in values if isinstance(value, list)}
    return sorted(set(prompt) - used, key=lambda node: prompt[node]["class_type"])


def differences(ours: dict[str, Any], a: str, theirs: dict[str, Any], b: str) -> list[str]:
    """Where node `a`, and all before it, differs from node `b`; a widget that only `theirs` has is none."""
    if ours[a]["class_type"] != theirs[b]["class_type"]:
        return [f"{ours[a]['class_type']} is {theirs[b]['class_type']}"]
    found: list[str] = []
    for name, value in ours[a]["inputs"].items():
        other = theirs[b]["inputs"].get(name)
        if isinstance(value, list) and isinstance(other, list):
            found += [] if value[1] == other[1] else [f"{a}.{name} takes output {other[1]}"]
            found += differences(ours, value[0], theirs, other[0])
        elif value != other:
            found.append(f"{a}.{name}: {value!r} is {other!r}")
    return found


def overlap(a: list[float], b: list[float]) -> bool:
    """Whether two boxes (x, y, width, height) share an area."""
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
