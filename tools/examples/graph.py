"""A workflow described once, written in ComfyUI's two forms.

The UI form (``example_workflows/*.json``) opens in the browser; the API form
(``example_workflows/api/*.json``) is what a script posts to ``/prompt``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .kinds import CONTROL_SUFFIX, KINDS, Kind

TITLE_HEIGHT, SOCKET_HEIGHT, WIDGET_HEIGHT, TEXT_HEIGHT = 30, 20, 26, 110
# What these nodes show below their widgets.
PREVIEW_HEIGHT = {"LoadImage": 320, "LoadVideo": 320, "SaveVideo": 400}
BOX_WIDTH, GAP = 330, 50
NOTE_HEIGHT = 420


@dataclass(frozen=True)
class Link:
    """Output ``slot`` of the node named ``node``."""

    node: str
    slot: int = 0


@dataclass(frozen=True)
class ModelFile:
    """A file the user may have to download.

    Args:
        name: as the loader lists it.
        url: of the file.
        directory: below ComfyUI's ``models`` folder.
    """

    name: str
    url: str
    directory: str


Value = Link | ModelFile | str | int | float | bool


@dataclass(frozen=True)
class Node:
    """One node of a workflow.

    Args:
        name: unique in the workflow; the key of the API form.
        kind: node id, one of ``kinds.KINDS``.
        given: the inputs that are linked or differ from the node's defaults.
        title: shown instead of the node's own.
        box_width: its width in the graph.
    """

    name: str
    kind: str
    given: Mapping[str, Value]
    title: str = ""
    box_width: int = BOX_WIDTH

    @property
    def type(self) -> Kind:
        """Sockets, widgets and outputs."""
        return KINDS[self.kind]

    @property
    def links(self) -> dict[str, Link]:
        """What is linked, by input, in the order of the node's inputs."""
        order = [*self.type.sockets, *self.type.widgets]
        return {name: link for name in order if isinstance(link := self.given.get(name), Link)}

    @property
    def widgets(self) -> dict[str, Any]:
        """The value of every widget, in the order of the node's widgets; a linked one keeps its default."""
        values = {}
        for name, default in self.type.widgets.items():
            value = self.given.get(name, default)
            values[name] = (
                default if isinstance(value, Link) else value.name if isinstance(value, ModelFile) else value
            )
        return values

    @property
    def models(self) -> tuple[ModelFile, ...]:
        """The files its widgets name."""
        return tuple(value for value in self.given.values() if isinstance(value, ModelFile))

    @property
    def height(self) -> int:
        """About what the frontend gives it, without the title."""
        rows = max(len(self.type.sockets), len(self.type.outputs)) * SOCKET_HEIGHT
        lines = sum(TEXT_HEIGHT if name.endswith("_prompt") else WIDGET_HEIGHT for name in self.type.widgets)
        return rows + lines + PREVIEW_HEIGHT.get(self.kind, 0) + 20


def node(name: str, kind: str, *, title: str = "", box_width: int = BOX_WIDTH, **given: Value) -> Node:
    """A node whose inputs are checked.

    Raises:
        ValueError: an input the kind does not have, a socket with a plain value, or a widget without any.
    """
    found = KINDS[kind]
    if unknown := set(given) - set(found.sockets) - set(found.widgets):
        raise ValueError(f"{kind} has no input {', '.join(sorted(unknown))}")
    if plain := [key for key in found.sockets if key in given and not isinstance(given[key], Link)]:
        raise ValueError(f"{kind} takes links at {', '.join(plain)}")
    if empty := [key for key, default in found.widgets.items() if default is None and key not in given]:
        raise ValueError(f"{kind} needs {', '.join(empty)}")
    return Node(name, kind, given, title, box_width)


@dataclass(frozen=True)
class Workflow:
    """Nodes in columns, from left to right, and what a user has to know.

    Args:
        name: of the files.
        title: one line.
        text: Markdown, what to set and what to expect; the list of files is added to it.
        columns: nodes from top to bottom; the note comes first in the first column.
    """

    name: str
    title: str
    text: str
    columns: tuple[tuple[Node, ...], ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes; their order is the order of their ids."""
        return tuple(node for column in self.columns for node in column)

    @property
    def models(self) -> tuple[ModelFile, ...]:
        """All files, once."""
        return tuple(dict.fromkeys(model for node in self.nodes for model in node.models))

    @property
    def note(self) -> str:
        """The text beside the graph."""
        files = [f"- `models/{model.directory}`: [{model.name}]({model.url})" for model in self.models]
        return "\n".join([f"## {self.title}", "", self.text.strip(), "", "Files:", "", *files, ""])


def api_form(workflow: Workflow) -> dict[str, Any]:
    """The prompt: node name -> class and inputs."""
    return {
        node.name: {
            "class_type": node.kind,
            "inputs": {
                **{k: v for k, v in node.widgets.items() if not k.endswith(CONTROL_SUFFIX)},
                **{name: [link.node, link.slot] for name, link in node.links.items()},
            },
            "_meta": {"title": node.title or node.kind},
        }
        for node in workflow.nodes
    }


def ui_form(workflow: Workflow) -> dict[str, Any]:
    """The graph as the browser saves it."""
    ids = {node.name: index for index, node in enumerate(workflow.nodes, start=1)}
    kinds = {node.name: node.type for node in workflow.nodes}
    links: list[list[Any]] = []
    nodes = [_ui_node(node, place, ids, (kinds, links)) for node, place in _places(workflow)]
    for node in nodes:
        for slot, output in enumerate(node["outputs"]):
            output["links"] = [link[0] for link in links if link[1] == node["id"] and link[2] == slot]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"wanvideo/{workflow.name}")),
        "revision": 0,
        "last_node_id": len(ids) + 1,
        "last_link_id": len(links),
        "nodes": [*nodes, _ui_note(workflow, len(ids) + 1)],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {"ds": {"scale": 0.7, "offset": [60, 80]}},
        "version": 0.4,
    }


def _places(workflow: Workflow) -> Iterator[tuple[Node, tuple[int, int]]]:
    """Every node with the upper left corner of its box."""
    x = 0
    for number, column in enumerate(workflow.columns):
        y = 0 if number else NOTE_HEIGHT + TITLE_HEIGHT + GAP
        for node in column:
            yield node, (x, y)
            y += node.height + TITLE_HEIGHT + GAP
        x += max((node.box_width for node in column), default=0) + GAP


def _ui_node(
    node: Node, place: tuple[int, int], ids: dict[str, int], graph: tuple[dict[str, Kind], list[list[Any]]]
) -> dict[str, Any]:
    kinds, links = graph
    inputs = []
    for slot, (name, link) in enumerate(node.links.items()):
        kind = list(kinds[link.node].outputs.values())[link.slot]
        links.append([len(links) + 1, ids[link.node], link.slot, ids[node.name], slot, kind])
        found = {"name": name, "type": kind, "link": len(links)}
        inputs.append(found | ({"widget": {"name": name}} if name in node.type.widgets else {}))
    properties: dict[str, Any] = {"Node name for S&R": node.kind}
    if node.models:
        properties["models"] = [{"name": m.name, "url": m.url, "directory": m.directory} for m in node.models]
    return {
        "id": ids[node.name],
        "type": node.kind,
        "pos": list(place),
        "size": [node.box_width, node.height],
        "flags": {},
        "order": ids[node.name] - 1,
        "mode": 0,
        "inputs": inputs,
        "outputs": [{"name": name, "type": kind, "links": []} for name, kind in node.type.outputs.items()],
        "properties": properties,
        "widgets_values": list(node.widgets.values()),
        **({"title": node.title} if node.title else {}),
    }


def _ui_note(workflow: Workflow, node_id: int) -> dict[str, Any]:
    width = max((node.box_width for node in workflow.columns[0]), default=BOX_WIDTH)
    return {
        "id": node_id,
        "type": "MarkdownNote",
        "pos": [0, 0],
        "size": [width, NOTE_HEIGHT],
        "flags": {},
        "order": node_id - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [workflow.note],
    }
