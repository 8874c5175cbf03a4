"""What a model family is to the engine.

A family is a folder with ``family.py`` (this class), ``inputs.py`` (its conditioning), ``nodes.py``
(its ComfyUI nodes) and ``README.md``. It may use the core; the core never names it.
See docs/add-a-family.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..transformer.model import WanTransformer
from ..weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class FamilySpec:
    """What a family found in a checkpoint.

    Args:
        name: the family's name.
        sizes: numbers it needs to build its modules (layers, channels, ...).
    """

    name: str
    sizes: Mapping[str, int]


class Family:
    """Base class; a family overrides what it needs."""

    name: str = ""

    def detect(self, checkpoint: Checkpoint) -> FamilySpec | None:
        """Whether the checkpoint carries this family's weights; reads key names and shapes only."""
        del checkpoint

    def key_map(self, key: str) -> str | None:
        """The module path of a key in the file; ``None`` drops it."""
        return key

    def extend(self, model: WanTransformer, spec: FamilySpec) -> None:
        """Add modules and fill extension points, on the meta device."""
        del model, spec
