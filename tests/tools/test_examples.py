"""The shipped workflows are what their description says, in both forms."""

import json

import pytest
from comfyui_wanvideo.tools.examples.graph import Link, api_form, node, ui_form
from comfyui_wanvideo.tools.examples.kinds import KINDS
from comfyui_wanvideo.tools.examples.write import FOLDER, WORKFLOWS, files
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule

FILE_SUFFIXES = (".safetensors", ".gguf", ".pth")
workflows = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)


def test_every_workflow_file_is_up_to_date():
    for path, content in files().items():
        assert json.loads(path.read_text(encoding="utf-8")) == content, path.name


def test_no_other_workflow_is_shipped():
    assert {*FOLDER.glob("*.json"), *FOLDER.glob("api/*.json")} == set(files())


@workflows
def test_every_workflow_has_a_thumbnail(workflow):
    assert (FOLDER / f"{workflow.name}.jpg").stat().st_size > 1000


def test_every_workflow_has_its_own_thumbnail():
    pictures = [(FOLDER / f"{workflow.name}.jpg").read_bytes() for workflow in WORKFLOWS]
    assert len(set(pictures)) == len(WORKFLOWS)


@workflows
def test_the_thumbnail_can_be_drawn_anew(workflow):
    pytest.importorskip("PIL")
    from comfyui_wanvideo.tools.examples import thumbnail

    picture = thumbnail.draw(workflow.name)
    assert picture.size == thumbnail.SIZE
    assert len(picture.getcolors(maxcolors=1 << 20) or ()) > 100


@workflows
def test_every_loader_names_where_its_file_comes_from(workflow):
    for found in workflow.nodes:
        named = {value for value in found.widgets.values() if str(value).endswith(FILE_SUFFIXES)}
        assert named == {model.name for model in found.models}, found.name


@workflows
def test_every_file_has_an_address_that_ends_in_its_name(workflow):
    for model in workflow.models:
        assert model.url.startswith("https://huggingface.co/")
        assert model.url.endswith(f"/{model.name}")


@workflows
def test_the_note_lists_every_file_and_its_folder(workflow):
    for model in workflow.models:
        assert f"`models/{model.directory}`: [{model.name}]({model.url})" in workflow.note


@workflows
def test_every_link_leads_to_an_output_of_its_type(workflow):
    nodes = {found.name: found for found in workflow.nodes}
    for found in workflow.nodes:
        for name, link in found.links.items():
            output = list(nodes[link.node].type.outputs.values())[link.slot]
            wanted = found.type.sockets.get(name) or widget_type(found.type.widgets[name])
            assert output in wanted.split(","), f"{found.name}.{name}"


@workflows
def test_every_output_but_the_last_is_used(workflow):
    used = {link.node for found in workflow.nodes for link in found.links.values()}
    assert [found.kind for found in workflow.nodes if found.name not in used] == ["SaveVideo"]


@pytest.mark.parametrize(("name", "boundary"), [("t2v_wan22", 0.875), ("fun_control", 0.9)])
def test_the_low_noise_model_begins_where_the_noise_is_below_its_boundary(name, boundary):
    (workflow,) = [workflow for workflow in WORKFLOWS if workflow.name == name]
    low = next(found for found in workflow.nodes if found.name == "sampler").widgets
    sigmas = build_schedule(low["scheduler"], low["steps"], low["shift"]).sigmas
    assert sigmas[low["start_step"]] < boundary <= sigmas[low["start_step"] - 1]


@pytest.mark.parametrize("name", ["t2v_wan22", "i2v_wan22", "i2v_wan22_loop", "i2v_only", "fun_control"])
def test_both_samplers_of_two_models_follow_one_schedule(name):
    (workflow,) = [workflow for workflow in WORKFLOWS if workflow.name == name]
    high, low = (
        next(found for found in workflow.nodes if found.name == part).widgets
        for part in ("sampler_high", "sampler")
    )
    assert {key for key in high if high[key] != low[key]} <= {"cfg", "start_step", "end_step"}
    assert (high["start_step"], low["end_step"]) == (0, -1)
    assert high["end_step"] == low["start_step"]
    assert not low["add_noise_to_samples"]


@workflows
def test_names_of_nodes_are_unique(workflow):
    names = [found.name for found in workflow.nodes]
    assert len(set(names)) == len(names)


@workflows
def test_the_ui_form_lists_every_link_on_both_of_its_ends(workflow):
    graph = ui_form(workflow)
    nodes = {found["id"]: found for found in graph["nodes"]}
    for number, source, slot, target, place, _ in graph["links"]:
        assert number in nodes[source]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][place]["link"] == number


@workflows
def test_the_api_form_gives_every_node_all_its_widgets(workflow):
    for found in api_form(workflow).values():
        wanted = {name for name in KINDS[found["class_type"]].widgets if not name.endswith(":control")}
        assert wanted <= set(found["inputs"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": Link("a"), "colour": 1}, "no input colour"),
        ({"images": 3}, "takes links at images"),
    ],
)
def test_a_node_with_a_wrong_input_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        node("video", "CreateVideo", **given)


def test_a_node_without_its_file_is_refused():
    with pytest.raises(ValueError, match="needs vae_name"):
        node("vae", "VAELoader")


def widget_type(default):
    """INT or FLOAT, by a widget's default."""
    return {int: "INT", float: "FLOAT"}[type(default)]
