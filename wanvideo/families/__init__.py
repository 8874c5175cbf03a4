"""Model families: one folder each, found by name; the core knows only :class:`Family`."""

from __future__ import annotations

import importlib
import pkgutil

from .family import Family


def discover() -> tuple[Family, ...]:
    """The family of every sub-folder, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    return tuple(importlib.import_module(f".{name}.family", __name__).FAMILY for name in names)
