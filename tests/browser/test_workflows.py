"""Every shipped workflow opens without complaint in the real frontend, and runs from its "Run" button."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from comfyui_wanvideo.tools.development.demo import MODEL_FOLDERS, tiny_names
from comfyui_wanvideo.tools.development.layout import PACK_NAME
from comfyui_wanvideo.tools.development.workflow import INPUTS

from .frontend import Frontend

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"
SMALL = {"width": 64, "height": 64, "frames": 5, "steps": 2}
FRAMES_PER_SECOND = 16

workflows = pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.json")))


@pytest.fixture(scope="module")
def provisioned(comfy):
    """The server with tiny models under the names that the workflows ask for: a user who has the files."""
    models = comfy.base / "models"
    by_folder = {MODEL_FOLDERS[meaning]: name for meaning, name in tiny_names(models).items()}
    for path in EXAMPLES.glob("*.json"):
        for node in read(path.stem)["nodes"]:
            for model in node.get("properties", {}).get("models", []):
                wanted = models / model["directory"] / model["name"]
                if not wanted.exists():
                    wanted.hardlink_to(models / model["directory"] / by_folder[model["directory"]])
    return comfy


@pytest.fixture
def frontend(page, provisioned):
    return Frontend(page, provisioned)


@workflows
def test_workflow_opens_without_a_complaint(frontend, name):
    frontend.load(read(name))
    assert frontend.complaints() == []


@workflows
def test_workflow_runs_and_shows_its_video(frontend, name):
    frontend.load(read(name))
    small = [(*place, value) for meaning, value in SMALL.items() for place in INPUTS[meaning]]
    assert frontend.set_widgets(small) >= len(SMALL)
    assert frontend.run(seconds=180)[0] == "execution_success"
    video = frontend.shown_video()
    assert (video["width"], video["height"]) == (SMALL["width"], SMALL["height"])
    assert video["seconds"] == pytest.approx(SMALL["frames"] / FRAMES_PER_SECOND, abs=0.01)
    assert frontend.complaints() == []


def test_a_sampler_saved_with_an_empty_value_after_its_last_widget_runs(frontend):
    """Graphs of the predecessor have it; it falls on the first widget appended since."""
    graph = read("t2v")
    (sampler,) = [node for node in graph["nodes"] if node["type"] == "WanVideoSampler"]
    sampler["widgets_values"].append("")
    frontend.load(graph)
    small = [(*place, value) for meaning, value in SMALL.items() for place in INPUTS[meaning]]
    frontend.set_widgets(small)
    assert frontend.run(seconds=180)[0] == "execution_success"
    assert frontend.complaints() == []


@workflows
def test_api_twin_is_what_the_frontend_exports(frontend, name):
    frontend.load(read(name))
    twin = json.loads((EXAMPLES / "api" / f"{name}.json").read_text(encoding="utf-8"))
    exported = frontend.prompt()
    ours, theirs = outputs(twin), outputs(exported)
    assert [twin[node]["class_type"] for node in ours] == [exported[node]["class_type"] for node in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert differences(twin, a, exported, b) == []


@workflows
def test_no_node_of_the_workflow_covers_another(frontend, name):
    frontend.load(read(name))
    covered = [
        f"{a['type']} and {b['type']}"
        for a, b in combinations(frontend.nodes(), 2)
        if overlap(a["box"], b["box"])
    ]
    assert covered == []


def test_an_unknown_node_is_a_complaint(frontend):
    """What the tests above look for is really shown: the same workflow with a node nobody has."""
    workflow = read("t2v")
    workflow["nodes"][0]["type"] = "NoSuchNode"
    frontend.load(workflow)
    assert "unknown node NoSuchNode" in frontend.complaints()
    assert any(text.startswith("Missing node: NoSuchNode") for text in frontend.complaints())


def test_templates_offer_the_workflows_and_not_their_api_twins(comfy):
    offered = comfy.client.get("/workflow_templates")[PACK_NAME]
    assert sorted(offered) == sorted(path.stem for path in EXAMPLES.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    return json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


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
