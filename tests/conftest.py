"""The repository's import name for every test, and access to ComfyUI's own modules."""

import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from .comfyui.server import Comfy

ROOT = Path(__file__).resolve().parent.parent

# Always this folder, and never its __init__.py, which is for ComfyUI: `comfyui_wanvideo.wanvideo` is
# `wanvideo/` here, whatever is installed in the environment and whatever this folder is called.
package = types.ModuleType("comfyui_wanvideo")
package.__path__ = [str(ROOT)]
sys.modules["comfyui_wanvideo"] = package


# Drawing inputs is slow on a busy machine (hypothesis first reads the constants of all imported sources);
# that is not a fault of the test, and no test here is a timed one.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def in_ci() -> bool:
    """Whether this is a CI run, where nothing may be skipped for want of a program."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def unavailable(reason: str) -> None:
    """Skip the test with `reason`, or fail it in CI."""
    if in_ci():
        pytest.fail(f"{reason} (in CI this is a failure)")
    pytest.skip(reason)


def find_comfyui() -> Path | None:
    """The ComfyUI of COMFYUI_PATH, else the one that ``tools/dev.py setup`` prepared."""
    for folder in (os.environ.get("COMFYUI_PATH"), ROOT / ".dev" / "ComfyUI"):
        if folder and (Path(folder) / "comfy").is_dir():
            return Path(folder).resolve()
    return None


@pytest.fixture(scope="session")
def comfyui_folder() -> Path:
    """The folder of a ComfyUI; nothing of it is imported."""
    found = find_comfyui()
    if found is None:
        unavailable("no ComfyUI here: run tools/dev.py setup, or set COMFYUI_PATH")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def comfyui_path(comfyui_folder: Path) -> Path:
    """Makes ComfyUI's modules (``comfy.ldm``, ...) importable on the CPU; returns its folder.

    For parity tests. Import inside the test, after the fixture. The folder goes to the end of the path:
    ComfyUI's top-level names (nodes, utils, app) are common ones.
    """
    if str(comfyui_folder) not in sys.path:
        sys.path.append(str(comfyui_folder))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True  # before comfy.model_management picks its device
    return comfyui_folder


@pytest.fixture(scope="session")
def comfy(comfyui_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Comfy"]:
    """One real ComfyUI server for all tests of the session; see ``tests/comfyui/server.py``."""
    from .comfyui.server import Comfy, write_tiny_models

    base = tmp_path_factory.mktemp("comfyui")
    write_tiny_models(base / "models")
    running = Comfy(base, comfyui_folder)
    with running.server:
        yield running
