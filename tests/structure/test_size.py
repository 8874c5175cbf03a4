"""Files and functions stay small enough to be read in one go."""

import ast

from .source import Source, all_files

FILE_LINES = 400
FUNCTION_LINES = 60


def test_no_file_is_longer_than_400_lines():
    long = {s.name: n for s in all_files() if (n := len(s.text.splitlines())) > FILE_LINES}
    assert not long


def test_no_function_is_longer_than_60_lines():
    sources = [source for source in all_files() if not source.name.startswith("tests/")]
    assert sources
    assert not [place for source in sources for place in _long_functions(source)]


def _long_functions(source: Source) -> list[str]:
    return [
        f"{source.at(node)} {node.name}: {lines} lines"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]
