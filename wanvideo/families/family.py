"""What a model family is to the engine.

A family is a folder with ``family.py`` (this class), ``inputs.py`` (its conditioning), ``nodes.py``
(its ComfyUI nodes) and ``README.md``. It may use the core; the core never names it.
See docs/add-a-family.md.
"""

from __future__ import annotations

from typing import ClassVar

from ..transformer.model import WanTransformer
from ..weights.checkpoint import Checkpoint
from ..weights.detect import ModelSpec


class Family:
    """Base class; a family overrides what it needs."""

    name: ClassVar[str] = ""
    capabilities: ClassVar[frozenset[str]] = frozenset()
    """Names of ``weights.capabilities``; a file with one of them is of this family."""

    def is_in(self, spec: ModelSpec) -> bool:
        """Whether a file is of this family, by key names and shapes only."""
        return bool(self.capabilities & spec.capabilities)

    def extend(self, model: WanTransformer, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        """Add modules and fill extension points, on the meta device.

        Args:
            model: to extend; several families may extend the same.
            checkpoint: all files of the model as one, with official key names; read shapes only.
            spec: what they are.
        """
        del model, checkpoint, spec
