"""The pack's nodes, in groups that load independently of each other."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from .base import WanNode
from .host import ComfyExtension, io

log = logging.getLogger(__name__)

FAMILIES = Path(__file__).parent.parent / "wanvideo" / "families"


def _family_groups() -> tuple[str, ...]:
    """``nodes.py`` of every family that has one, as modules relative to the pack."""
    folders = sorted(path.parent.name for path in FAMILIES.glob("*/nodes.py"))
    return tuple(f".wanvideo.families.{folder}.nodes" for folder in folders)


GROUPS = (
    "text",
    "vae",
    "embeds",
    "clip_vision",
    "image_to_video",
    "control",
    "image",
    "latent",
    "schedules",
    "model",
    "memory",
    "extra_models",
    "compile",
    "attention",
    "scheduler",
    "experimental",
    "sampler",
    "frames",
    "audio",
    "blocks",
    "core_sigmas",
    *_family_groups(),
)


class WanVideoExtension(ComfyExtension):
    """Hands the pack's nodes to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes whose group could be imported and whose interface could be built."""
        return [*load_groups(GROUPS)]


def load_groups(groups: tuple[str, ...]) -> list[type[WanNode]]:
    """Nodes of the groups, in order.

    A group that fails is reported with its reason and left out: without this, one missing library
    would take all nodes away.
    """
    nodes: list[type[WanNode]] = []
    for group in groups:
        try:
            found: list[type[WanNode]] = importlib.import_module(f".{group}", __package__).NODES
            for node in found:
                node.GET_SCHEMA()
        except Exception as error:  # ComfyUI would drop the whole pack
            log.exception("WanVideo: the nodes of the group '%s' are not available: %s", group, error)
        else:
            nodes.extend(found)
    return nodes


async def comfy_entrypoint() -> WanVideoExtension:
    """Called by ComfyUI when it loads the pack."""
    return WanVideoExtension()
