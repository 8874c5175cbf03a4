"""Where things lie: the repository, and the command's own folder in it."""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACK_NAME = "ComfyUI-WanVideo"  # the folder's name in custom_nodes
IMPORT_NAME = "comfyui_wanvideo"  # the name tests and tools import the repository by


@dataclass(frozen=True)
class Layout:
    """Paths of one checkout; everything the command makes is in `dev` or `venv`."""

    root: Path = ROOT

    @property
    def dev(self) -> Path:
        """The command's own folder, which git ignores."""
        return self.root / ".dev"

    @property
    def venv(self) -> Path:
        """The environment the command makes when it is not given one."""
        return self.root / ".venv"

    @property
    def downloaded_comfyui(self) -> Path:
        """The pinned ComfyUI, once it is there."""
        return self.dev / "comfyui-pinned"

    @property
    def comfyui(self) -> Path:
        """A link to the ComfyUI in use, whichever that is; pyright and the tests look here."""
        return self.dev / "ComfyUI"

    @property
    def packages(self) -> Path:
        """A folder for PYTHONPATH in which the repository has its import name."""
        return self.dev / "packages"

    @property
    def base(self) -> Path:
        """ComfyUI's base directory: models, custom_nodes, input, output, user."""
        return self.dev / "base"

    @property
    def logs(self) -> Path:
        """Output of installations and servers."""
        return self.dev / "logs"

    @property
    def demo(self) -> Path:
        """Finished videos of the demo."""
        return self.dev / "demo"

    @property
    def requirements(self) -> tuple[Path, ...]:
        """The repository's requirement files: the pack's own, then the development ones."""
        return self.root / "requirements.txt", Path(__file__).parent / "requirements.txt"

    @property
    def constraints(self) -> Path:
        """Exact versions of everything that the requirement files pull in."""
        return Path(__file__).parent / "constraints.txt"


def link_directory(link: Path, target: Path) -> None:
    """Make `link` point at the folder `target`; on Windows a junction, which needs no rights."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir() and link.resolve() == target.resolve():
        return
    remove_link(link)
    if os.name == "nt":
        import _winapi

        _winapi.CreateJunction(str(target.resolve()), str(link))  # pyright: ignore[reportAttributeAccessIssue]
    else:
        link.symlink_to(target.resolve(), target_is_directory=True)


def remove_link(link: Path) -> None:
    """Remove a link or junction and never what it points at.

    Raises:
        OSError: when `link` is a real folder with something in it.
    """
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        link.rmdir()  # a junction; refuses a real folder that is not empty
