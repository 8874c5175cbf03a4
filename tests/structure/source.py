"""The repository's Python files, parsed, for the structure tests."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACK = ("kernels", "lora", "nodes", "wanvideo")  # what ComfyUI loads, besides __init__.py
OTHER = ("benchmarks", "tests", "tools")


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path

    @property
    def name(self) -> str:
        """The path from the repository's root, with forward slashes."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)

    def at(self, node: ast.expr | ast.stmt) -> str:
        """Where `node` is, as file:line."""
        return f"{self.name}:{node.lineno}"


@dataclass(frozen=True)
class Import:
    """One imported module: its name, the level of a relative import (0: absolute), where it is, and what is
    taken from it (nothing when the module itself is imported)."""

    module: str
    level: int
    place: str
    inside_function: bool
    names: tuple[str, ...] = ()

    @property
    def top(self) -> str:
        """The name before the first dot."""
        return self.module.partition(".")[0]


def pack_files() -> list[Source]:
    """The Python files of the pack itself."""
    return [Source(ROOT / "__init__.py"), *_below(PACK)]


def all_files() -> list[Source]:
    """Every Python file of the repository."""
    return [*pack_files(), *_below(OTHER)]


def calls(source: Source) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name that is called, where it has one."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            yield name, node


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for such an expression, "" for any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def imports(source: Source) -> list[Import]:
    """Every import of a file, also those inside functions."""
    found: list[Import] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, 0, source.at(node), inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append(Import(node.module or "", node.level, source.at(node), inside, names))
        within = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, within)

    visit(source.tree, False)
    return found


def _below(folders: tuple[str, ...]) -> list[Source]:
    return [
        Source(path)
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "__pycache__" not in path.parts
    ]
