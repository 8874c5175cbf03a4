"""A workflow described once, written in ComfyUI's two forms.

The UI form (``example_workflows/*.json``) opens in the browser; the API form
(``example_workflows/api/*.json``) is what a script posts to ``/prompt``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CONTROL_SUFFIX = ":control"  # a widget only the browser has: what happens to a seed after a run
WIDGET_HEIGHT, HEADER_HEIGHT, TEXT_HEIGHT = 26, 60, 120


@dataclass(frozen=True)
class Link:
    """Output ``slot`` of the node named ``node``."""

    node: str
    slot: int = 0


@dataclass(frozen=True)
class ModelFile:
    """A file the user may have to download."""

    name: str
    url: str
    directory: str


@dataclass(frozen=True)
class Node:
    """One node of the workflow.

    Args:
        name: unique in the workflow; the key of the API form.
        kind: node id.
        inputs: links by socket name, with the socket's type: ``{"vae": (Link("vae"), "VAE")}``.
        widgets: values by widget name, in the order of the node's interface.
        outputs: ``(name, type)`` of every output.
        column, row: place in the graph.
        title: shown instead of the node's own.
        models: files its widgets name.
        width: in the graph.
    """

    name: str
    kind: str
    inputs: dict[str, tuple[Link, str]] = field(default_factory=dict)
    widgets: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[tuple[str, str], ...] = ()
    column: int = 0
    row: int = 0
    title: str = ""
    models: tuple[ModelFile, ...] = ()
    width: int = 330


@dataclass(frozen=True)
class Note:
    """A text beside the graph."""

    text: str
    column: int
    row: int


@dataclass(frozen=True)
class Workflow:
    """Nodes and notes; the order of the nodes is the order of their ids."""

    name: str
    nodes: tuple[Node, ...]
    notes: tuple[Note, ...] = ()


def api_form(workflow: Workflow) -> dict[str, Any]:
    """The prompt: node name -> class and inputs."""
    return {
        node.name: {
            "class_type": node.kind,
            "inputs": {
                **{k: v for k, v in node.widgets.items() if not k.endswith(CONTROL_SUFFIX)},
                **{k: [link.node, link.slot] for k, (link, _) in node.inputs.items()},
            },
            "_meta": {"title": node.title or node.kind},
        }
        for node in workflow.nodes
    }


def ui_form(workflow: Workflow) -> dict[str, Any]:
    """The graph as the browser saves it."""
    ids = {node.name: index for index, node in enumerate(workflow.nodes, start=1)}
    links: list[list[Any]] = []
    nodes = [_ui_node(node, ids, links) for node in workflow.nodes]
    for node in nodes:
        for slot, output in enumerate(node["outputs"]):
            output["links"] = [link[0] for link in links if link[1] == node["id"] and link[2] == slot]
    notes = [_ui_note(note, len(ids) + index) for index, note in enumerate(workflow.notes, start=1)]
    return {
        "id": f"00000000-0000-4000-8000-{sum(workflow.name.encode()):012d}",
        "revision": 0,
        "last_node_id": len(ids) + len(notes),
        "last_link_id": len(links),
        "nodes": [*nodes, *notes],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {"ds": {"scale": 0.7, "offset": [60, 80]}},
        "version": 0.4,
    }


def _ui_node(node: Node, ids: dict[str, int], links: list[list[Any]]) -> dict[str, Any]:
    inputs = []
    for slot, (name, (link, kind)) in enumerate(node.inputs.items()):
        links.append([len(links) + 1, ids[link.node], link.slot, ids[node.name], slot, kind])
        inputs.append({"name": name, "type": kind, "link": len(links)})
    lines = sum(TEXT_HEIGHT if _is_text(value) else WIDGET_HEIGHT for value in node.widgets.values())
    sockets = max(len(node.inputs), len(node.outputs)) * 20
    properties: dict[str, Any] = {"Node name for S&R": node.kind}
    if node.models:
        properties["models"] = [{"name": m.name, "url": m.url, "directory": m.directory} for m in node.models]
    found: dict[str, Any] = {
        "id": ids[node.name],
        "type": node.kind,
        "pos": [node.column, node.row],
        "size": [node.width, HEADER_HEIGHT + sockets + lines],
        "flags": {},
        "order": ids[node.name] - 1,
        "mode": 0,
        "inputs": inputs,
        "outputs": [{"name": name, "type": kind, "links": []} for name, kind in node.outputs],
        "properties": properties,
        "widgets_values": list(node.widgets.values()),
    }
    if node.title:
        found["title"] = node.title
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and " " in value


def _ui_note(note: Note, node_id: int) -> dict[str, Any]:
    return {
        "id": node_id,
        "type": "MarkdownNote",
        "pos": [note.column, note.row],
        "size": [360, 300],
        "flags": {},
        "order": node_id - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [note.text],
    }
