"""Encoded prompts kept on disk between runs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

log = logging.getLogger(__name__)

VERSION = 1  # raise it when the same prompt gives other rows
ROWS = "rows"


class TextCache:
    """One file per prompt and text encoder.

    Args:
        folder: exists already.
        identity: all that the rows depend on beside the prompt.
    """

    def __init__(self, folder: Path, identity: Sequence[object]) -> None:
        self.folder = folder
        self._identity = [VERSION, *map(str, identity)]

    def path(self, prompt: str) -> Path:
        """Where the rows of a prompt are kept."""
        key = json.dumps([*self._identity, prompt]).encode()
        return self.folder / f"{hashlib.sha256(key).hexdigest()}.safetensors"

    def get(self, prompt: str) -> Tensor | None:
        """Rows ``[L, width]``, or ``None`` when they are not there or not readable."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.path(prompt)
        if not path.is_file():
            return None
        try:
            return load_file(path)[ROWS]
        except (SafetensorError, KeyError, OSError) as error:
            log.warning("%s is not readable (%s): the prompt is encoded again", path, error)
            return None

    def put(self, prompt: str, rows: Tensor) -> None:
        """Keep the rows; a run that stops half-way leaves no damaged file."""
        from safetensors.torch import save_file

        path = self.path(prompt)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        save_file({ROWS: rows.cpu().contiguous()}, unfinished)
        unfinished.replace(path)
