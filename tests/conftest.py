"""Give the repository the import name the tests use, whatever folder it lies in."""

import importlib.util
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if importlib.util.find_spec("comfyui_wanvideo") is None:
    package = types.ModuleType("comfyui_wanvideo")
    package.__path__ = [str(ROOT)]
    sys.modules["comfyui_wanvideo"] = package
