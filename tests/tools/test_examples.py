"""The shipped workflows are what their description says, in both forms."""

import json

import pytest
from comfyui_wanvideo.tools.examples.write import ROOT, WORKFLOWS, files


def test_every_workflow_file_is_up_to_date():
    for path, content in files().items():
        assert json.loads(path.read_text(encoding="utf-8")) == content, path.name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_workflow_has_a_thumbnail(workflow):
    assert (ROOT / "example_workflows" / f"{workflow.name}.jpg").stat().st_size > 1000


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_loader_names_where_its_file_comes_from(workflow):
    for node in workflow.nodes:
        named = {value for value in node.widgets.values() if str(value).endswith(".safetensors")}
        assert named == {model.name for model in node.models}, node.name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_link_leads_to_an_output_of_its_type(workflow):
    nodes = {node.name: node for node in workflow.nodes}
    for node in workflow.nodes:
        for link, kind in node.inputs.values():
            assert nodes[link.node].outputs[link.slot][1] == kind, node.name
