"""The node interface is frozen: saved graphs depend on names, types and the order of widgets."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

SNAPSHOT = Path(__file__).with_name("interface.json")
PREDECESSOR = Path(__file__).resolve().parents[3] / "shared" / "compat" / "object_info.json"
FILE_LISTS = {"model", "model_name", "extra_model", "vace_model"}
KEPT_OPTIONS = ("default", "min", "max", "step", "multiline", "forceInput", "options")


@pytest.fixture
def nodes(node_module):
    node_module("embeds")
    pack = sys.modules["comfyui_wanvideo.nodes"]
    found = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
    return {node.SCHEMA.node_id: node.GET_NODE_INFO_V1() for node in found}


def described(info):
    """What a saved graph depends on."""
    inputs = []
    for group in ("required", "optional"):
        for name, (kind, options) in (info["input"].get(group) or {}).items():
            kept = {key: options[key] for key in KEPT_OPTIONS if key in options}
            if name in FILE_LISTS:
                kept.pop("options", None)
                kept.pop("default", None)
            inputs.append([group, name, kind, kept])
    outputs = [list(pair) for pair in zip(info["output"], info["output_name"], strict=True)]
    return {"display_name": info["display_name"], "inputs": inputs, "outputs": outputs}


def test_the_interface_is_that_of_the_snapshot(nodes, tmp_path):
    found = {name: described(info) for name, info in sorted(nodes.items())}
    new = tmp_path / SNAPSHOT.name
    new.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    expected = json.loads(SNAPSHOT.read_text(encoding="utf-8")) if SNAPSHOT.exists() else {}
    changed = sorted(
        name for name in found.keys() | expected.keys() if json_of(found, name) != expected.get(name)
    )
    assert not changed, f"{changed} changed; if that is meant: cp {new} {SNAPSHOT}"


def json_of(found, name):
    return json.loads(json.dumps(found.get(name)))


def names_in_order(info):
    return [
        name
        for group in ("required", "optional")
        for name in (info.get("input_order") or {}).get(group, info["input"].get(group) or {})
    ]


def test_every_node_keeps_its_predecessors_inputs_in_order_and_its_outputs(nodes):
    """New inputs come after the old ones, so that the widgets of a saved graph keep their places."""
    if not PREDECESSOR.exists():
        pytest.skip("the interface data of the predecessor is not here")
    predecessor = json.loads(PREDECESSOR.read_text(encoding="utf-8"))
    for name, info in nodes.items():
        if name not in predecessor:
            continue
        old = predecessor[name]
        for group in ("required", "optional"):
            expected = (old.get("input_order") or {}).get(group) or []
            assert list(info["input"].get(group) or {})[: len(expected)] == expected, (name, group)
        assert names_in_order(info)[: len(names_in_order(old))] == names_in_order(old), name
        assert list(info["output_name"])[: len(old["output_name"])] == old["output_name"], name
        assert info["display_name"] == old["display_name"], name


def test_every_input_the_snapshot_calls_new_is_optional(nodes):
    if not PREDECESSOR.exists():
        pytest.skip("the interface data of the predecessor is not here")
    predecessor = json.loads(PREDECESSOR.read_text(encoding="utf-8"))
    for name, info in nodes.items():
        if name in predecessor:
            added = set(info["input"].get("required") or {}) - set(names_in_order(predecessor[name]))
            assert not added, (name, added)
