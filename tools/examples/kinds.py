"""The nodes the workflows use: their sockets, widgets and outputs, from ``kinds.json``.

A test compares the file with what a ComfyUI server says. A widget of value null has no default: a file,
for example.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTROL_SUFFIX = ":control"  # a widget only the browser has: what happens to a seed after a run


@dataclass(frozen=True)
class Kind:
    """A node class.

    Args:
        sockets: type by name of every input that is no widget, in order.
        widgets: default by name, in order.
        outputs: type by name, in order.
    """

    sockets: Mapping[str, str]
    widgets: Mapping[str, Any]
    outputs: Mapping[str, str]


def _read(path: Path) -> dict[str, Kind]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: Kind(**kind) for name, kind in content.items()}


KINDS: Mapping[str, Kind] = _read(Path(__file__).with_name("kinds.json"))
