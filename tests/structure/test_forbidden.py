"""Things that no file of the pack does."""

import ast
import os
import re
from pathlib import Path

import pytest

from .source import ROOT, all_files, calls, dotted, imports, pack_files

# May read the machine's settings; everything else takes them as arguments.
SETTINGS_FILES: tuple[str, ...] = ()
FORBIDDEN_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "print": "use logging",
    "logging.basicConfig": "the log belongs to ComfyUI",
    "os.system": "starts programs",
    "pickle.load": "runs code from a file",
    "pickle.loads": "runs code from a file",
    "pickle.Unpickler": "runs code from a file",
    "torch.set_default_dtype": "changes torch for everybody",
    "torch.set_grad_enabled": "changes torch for everybody",
    "torch.manual_seed": "changes torch's generator for everybody; make a torch.Generator",
    "torch.seed": "changes torch's generator for everybody",
}
FORBIDDEN_IMPORTS = {"dill", "subprocess", "urllib", "requests", "httpx", "huggingface_hub", "pip"}
# The exception a compiler's failure is raised as.
HARMLESS_IMPORTS = {("subprocess", ("SubprocessError",))}
TEXT_SUFFIXES = {".py", ".md", ".json", ".toml", ".txt", ".yaml", ".yml", ".js", ".css", ".cfg", ".ini", ""}
# A home folder of "someone" is an example, not a machine's.
MACHINE_PATHS = re.compile(
    r"(?<![\w./])/(?:work|tmp|home/(?!someone/)\w+|root|Users/\w+|mnt|opt|var/tmp)/|\b[A-Z]:\\\\?Users\\"
)


def test_every_python_file_can_be_written_in_cp1252():
    """Windows consoles and editors of the field read source as CP1252; other text lives in JSON."""
    assert not [source.name for source in all_files() if not _encodable(source.text)]


def test_no_absolute_path_of_a_machine_in_any_file():
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{number}"
        for path in _text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert not found


@pytest.mark.parametrize("parts", [("open('/tm", "p/x')"), ("cd /ho", "me/me/x"), ("'C:\\Us", "ers\\me'")])
def test_the_path_pattern_finds_a_machine_path(parts):
    assert MACHINE_PATHS.search("".join(parts))  # in parts, so that this file passes the test above


def test_no_environment_variable_is_read_or_written():
    found = [
        source.at(node)
        for source in pack_files()
        if source.name not in SETTINGS_FILES
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and dotted(node) in {"os.environ", "os.getenv", "os.putenv"}
    ]
    assert not found


def test_model_files_are_never_unpickled():
    found = [
        source.at(call)
        for source in pack_files()
        for name, call in calls(source)
        if name == "torch.load" and not _is_weights_only(call)
    ]
    assert not found


def test_no_forbidden_call():
    found = [
        f"{source.at(call)} {name}: {FORBIDDEN_CALLS[name]}"
        for source in pack_files()
        for name, call in calls(source)
        if name in FORBIDDEN_CALLS
    ]
    assert not found


def test_nothing_is_downloaded_started_or_unpickled():
    found = [
        f"{place.place} {place.module}"
        for source in pack_files()
        for place in imports(source)
        if place.level == 0
        and place.top in FORBIDDEN_IMPORTS
        and (place.module, place.names) not in HARMLESS_IMPORTS
    ]
    assert not found


def test_no_exception_is_swallowed_silently():
    """An ``except`` whose body is only ``pass`` hides what went wrong."""
    found = [
        source.at(node.body[0])
        for source in pack_files()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body)
    ]
    assert not found


def test_no_todo_without_an_issue():
    pattern = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))")
    found = [
        f"{source.name}:{number}"
        for source in pack_files()
        for number, line in enumerate(source.text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def _is_weights_only(call: ast.Call) -> bool:
    return any(
        keyword.arg == "weights_only"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is True
        for keyword in call.keywords
    )


def _encodable(text: str) -> bool:
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def _text_files() -> list[Path]:
    found: list[Path] = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name == ".ci" or not name.startswith((".", "__"))]
        found += [Path(folder, name) for name in files if Path(name).suffix in TEXT_SUFFIXES]
    return found
