"""Model families: one folder each, found by name; the core knows only :class:`Family`."""

from __future__ import annotations

import importlib
import pkgutil

from ..transformer.model import WanTransformer
from ..weights.checkpoint import Checkpoint
from ..weights.detect import ModelSpec
from .family import Family


def discover() -> tuple[Family, ...]:
    """The family of every sub-folder, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    return tuple(importlib.import_module(f".{name}.family", __name__).FAMILY for name in names)


def extend(model: WanTransformer, checkpoint: Checkpoint, spec: ModelSpec) -> None:
    """Let every family that is in a file extend the model; see ``Family.extend``."""
    for family in discover():
        if family.is_in(spec):
            family.extend(model, checkpoint, spec)
