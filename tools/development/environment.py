"""The Python environment: made once, with pinned versions, and reused while nothing it is made of changes."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .comfyui import version_of
from .console import DevError, child_environment, run_logged, say, section
from .layout import IMPORT_NAME, Layout, link_directory

STAMP = "wanvideo-environment.json"  # in the environment: what it was installed from
NETWORK_HINT = (
    "The first set-up needs the network; afterwards everything works without it. "
    "Run the command again: what is downloaded already is kept."
)
NEEDED = ("torch", "torchvision", "torchaudio", "aiohttp", "av", "comfyui_frontend_package", "ftfy", "gguf")


@dataclass(frozen=True)
class Environment:
    """An interpreter and the folder its environment lies in (None: somebody else's, used as it is)."""

    python: Path
    folder: Path | None

    def install(self, layout: Layout, comfyui: Path) -> None:
        """Install what ComfyUI, the pack and the checks need, unless it is there.

        Raises:
            DevError: pip failed, or an interpreter used as it is lacks something.
        """
        section("Packages")
        link_directory(layout.packages / IMPORT_NAME, layout.root)
        if self.folder is None:
            _require(self.python, NEEDED)
            return
        sources = [comfyui / "requirements.txt", *layout.requirements]
        fingerprint = fingerprint_of([*sources, layout.constraints])
        stamp = self.folder / STAMP
        if _read_stamp(stamp) == fingerprint:
            say(f"already installed in {self.folder}")
            return
        say(f"installing torch, the requirements of ComfyUI {version_of(comfyui)} and the development tools")
        say("the first time this fetches several GB (on Linux torch brings CUDA along)")
        requirements = [part for source in sources for part in ("-r", source)]
        run_logged(
            [*_pip(self.python), "install", "-c", layout.constraints, *requirements],
            log=layout.logs / "packages.log",
            failure="Could not install the packages",
            hint=NETWORK_HINT,
        )
        if self.folder == layout.venv:
            _add_import_path(self.python, layout.packages)
        stamp.write_text(json.dumps({"installed_from": fingerprint}), encoding="utf-8")


def prepare(layout: Layout, *, venv: str | None, python: str | None) -> Environment:
    """Return the environment to use, creating it when it is not there.

    Args:
        layout: the checkout.
        venv: the value of ``--venv``: an environment to create or to add to.
        python: the value of ``--python``: an interpreter to use as it is; nothing is installed.
    Raises:
        DevError: the interpreter is not there, or the environment could not be created.
    """
    section("Environment")
    if python:
        given = Path(python).expanduser().absolute()  # not resolved: an environment's python is a link
        if not _runs(given):
            raise DevError(f"--python names {given}, which does not start.")
        say(f"{given}, as it is (from --python)")
        return Environment(given, None)
    folder = Path(venv).expanduser().absolute() if venv else layout.venv
    interpreter = interpreter_of(folder)
    if _runs(interpreter, "import pip"):
        say(f"{folder}")
        return Environment(interpreter, folder)
    if venv and folder.exists() and any(folder.iterdir()):
        raise DevError(f"--venv names {folder}, which is neither a working environment nor an empty folder.")
    say(f"creating {folder} with Python {sys.version.split()[0]}")
    _create(layout, folder)
    return Environment(interpreter, folder)


def interpreter_of(folder: Path) -> Path:
    """The interpreter inside an environment's folder."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint_of(files: Iterable[Path]) -> str:
    """A digest of the files' contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _create(layout: Layout, folder: Path) -> None:
    log = layout.logs / "environment.log"
    if _runs(Path(sys.executable), "import ensurepip, venv"):
        run_logged(
            [sys.executable, "-m", "venv", "--clear", folder],
            log=log,
            failure="Could not create the environment",
        )
        return
    # Debian keeps ensurepip in a package of its own; a pip outside can put pip into the environment.
    if not _runs(Path(sys.executable), "import pip, venv"):
        raise DevError(
            f"{sys.executable} has neither ensurepip nor pip, so no environment can be made with it.\n"
            "On Debian and Ubuntu: apt-get install python3-venv"
        )
    run_logged(
        [sys.executable, "-m", "venv", "--clear", "--without-pip", folder],
        log=log,
        failure="Could not create the environment",
    )
    run_logged(
        [sys.executable, "-m", "pip", "--python", interpreter_of(folder), "install", "pip"],
        log=log,
        failure="Could not put pip into the environment",
        hint=NETWORK_HINT,
    )


def _pip(python: Path) -> list[str | Path]:
    return [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _runs(python: Path, code: str = "") -> bool:
    if not python.is_file():
        return False
    return subprocess.run([python, "-c", code], capture_output=True, env=child_environment()).returncode == 0


def _require(python: Path, modules: Iterable[str]) -> None:
    """Check that `modules` can be found by an interpreter that is used as it is."""
    code = "import sys, importlib.util as u; print(*[m for m in sys.argv[1:] if not u.find_spec(m)])"
    found = subprocess.run(
        [python, "-c", code, *modules], capture_output=True, text=True, env=child_environment(), check=True
    )
    missing = found.stdout.split()
    if missing:
        raise DevError(f"{python} lacks {', '.join(missing)}. Install them there, or leave out --python.")
    say("nothing is installed into an environment given with --python")


def _read_stamp(stamp: Path) -> str | None:
    if not stamp.is_file():
        return None
    return json.loads(stamp.read_text(encoding="utf-8")).get("installed_from")


def _add_import_path(python: Path, packages: Path) -> None:
    """Let the environment's interpreter import the repository under its import name."""
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        env=child_environment(),
        check=True,
    )
    path_file = Path(found.stdout.strip()) / f"{IMPORT_NAME}.pth"
    path_file.write_text(f"{packages}\n", encoding="utf-8")
