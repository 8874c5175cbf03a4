"""What a node has to say about its inputs while it goes on."""

from __future__ import annotations

import logging

from .base import WanNode
from .host import say

log = logging.getLogger(__name__)


def warn(node: type[WanNode], text: str) -> None:
    """A warning in the log, with the node's name, and a line of text under the node."""
    log.warning("%s: %s", node.shown_name(), text)
    say(text)
