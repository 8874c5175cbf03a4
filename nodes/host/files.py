"""Model files by folder and name, found again when a graph was saved on another machine."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import folder_paths

from ...wanvideo.errors import InputError, WanError

log = logging.getLogger(__name__)

GGUF = (".gguf",)
# ComfyUI lists no .gguf files. ComfyUI-GGUF registers folders of its own for them, and users add paths to
# those; we read them there and change no table of ComfyUI's, so that other nodes list what they listed.
GGUF_FOLDERS = {"diffusion_models": "unet_gguf", "text_encoders": "clip_gguf"}


def list_files(folder: str, *, extra_suffixes: Sequence[str] = ()) -> list[str]:
    """Names of the model files in a ComfyUI model folder and its sub-folders, sorted.

    Args:
        folder: ComfyUI's name of the folder, such as ``"diffusion_models"``.
        extra_suffixes: file name endings that ComfyUI itself does not list, such as ``".gguf"``.
    """
    names = set(folder_paths.get_filename_list(folder))
    if extra_suffixes:
        for root in _roots(folder, extra_suffixes):
            found, _ = folder_paths.recursive_search(root, excluded_dir_names=[".git"])
            names.update(folder_paths.filter_files_extensions(found, extra_suffixes))
    return sorted(names)


def resolve_file(
    folder: str, name: str | None, *, input_name: str, extra_suffixes: Sequence[str] = ()
) -> Path:
    """The path of a model file, also when it moved to another sub-folder.

    A graph keeps the name its author saw: with the other system's slashes, another sub-folder or
    another case. The exact name is taken first, then the file with the same base name that shares
    the most folder names from the right.

    Args:
        folder: ComfyUI's name of the folder.
        name: the name from the node's list, or an absolute path of another machine.
        input_name: the node input, for the message.
        extra_suffixes: as for :func:`list_files`.

    Raises:
        InputError: no file has this base name; the message names the folders and near matches.
    """
    if not name:
        raise InputError(input_name, f"no file chosen; put one into {_folders(folder)}")
    wanted = name.replace("\\", "/")
    exact = _full_path(folder, wanted, extra_suffixes)
    if exact is not None:
        return exact
    names = list_files(folder, extra_suffixes=extra_suffixes)
    candidates = [known for known in names if _base_name(known) == _base_name(wanted)]
    if not candidates:
        raise InputError(input_name, _not_found(folder, wanted, names))
    best = max(candidates, key=lambda known: _shared_tail(known, wanted))
    log.info("%s: '%s' is not there, using '%s'", input_name, name, best)
    path = _full_path(folder, best, extra_suffixes)
    if path is None:
        raise InputError(input_name, f"'{best}' is listed, but it cannot be found")
    return path


def check_file(
    folder: str, name: object, *, input_name: str, extra_suffixes: Sequence[str] = ()
) -> bool | str:
    """Answer of a node's ``validate_inputs`` for a file list: ``True``, or what is wrong.

    A value that is not known yet (a linked input) is accepted.
    """
    if not isinstance(name, str):
        return True
    try:
        resolve_file(folder, name, input_name=input_name, extra_suffixes=extra_suffixes)
    except WanError as error:
        return str(error)
    return True


def file_fingerprint(
    folder: str, name: object, *, extra_suffixes: Sequence[str] = ()
) -> tuple[str, int, int]:
    """What identifies a file for ComfyUI's cache: path, size in bytes, time of change in ns.

    A name that is not known yet or not found gives ``("", 0, 0)``; running the node reports it.
    """
    if not isinstance(name, str):
        return ("", 0, 0)
    try:
        path = resolve_file(folder, name, input_name="", extra_suffixes=extra_suffixes)
    except WanError:
        return ("", 0, 0)
    status = path.stat()
    return (str(path), status.st_size, status.st_mtime_ns)


def user_folder(name: str) -> Path:
    """A folder for what the pack keeps between runs, under ComfyUI's user directory; created."""
    folder = Path(folder_paths.get_user_directory()) / "wanvideo" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _folder_keys(folder: str, extra_suffixes: Sequence[str]) -> list[str]:
    """ComfyUI's folder, and the one another pack registered for files of these suffixes."""
    companion = GGUF_FOLDERS.get(folder) if set(GGUF) & set(extra_suffixes) else None
    return [folder, companion] if companion in folder_paths.folder_names_and_paths else [folder]


def _roots(folder: str, extra_suffixes: Sequence[str]) -> list[str]:
    keys = _folder_keys(folder, extra_suffixes)
    return list(dict.fromkeys(root for key in keys for root in folder_paths.get_folder_paths(key)))


def _full_path(folder: str, name: str, extra_suffixes: Sequence[str]) -> Path | None:
    paths = (folder_paths.get_full_path(key, name) for key in _folder_keys(folder, extra_suffixes))
    return next((Path(path) for path in paths if path is not None), None)


def _base_name(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name.lower()


def _shared_tail(known: str, wanted: str) -> int:
    """How many path parts agree, counted from the file name to the left."""
    count = 0
    for a, b in zip(_parts(known), _parts(wanted), strict=False):
        if a != b:
            break
        count += 1
    return count


def _parts(name: str) -> list[str]:
    return list(reversed(PurePosixPath(name.replace("\\", "/").lower()).parts))


def _folders(folder: str) -> str:
    return " or ".join(f"'{path}'" for path in folder_paths.get_folder_paths(folder))


def _not_found(folder: str, wanted: str, names: list[str]) -> str:
    by_base_name = {_base_name(known): known for known in names}
    near = difflib.get_close_matches(_base_name(wanted), by_base_name, n=3, cutoff=0.5)
    hint = f"; similar: {', '.join(by_base_name[known] for known in near)}" if near else ""
    return f"'{wanted}' is not in the folder {_folders(folder)} or a folder below it{hint}"
