"""Writing a safetensors file in one step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write or replace a file: a program that has the old one mapped keeps it."""
    unfinished = path.with_name(path.name + ".part")
    save_file(dict(tensors), unfinished, metadata={"format": "pt"})
    os.replace(unfinished, path)
