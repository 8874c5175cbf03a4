"""The static checks and the tests, run one after the other and summed up."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .console import child_environment, duration, say, section
from .layout import Layout

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SLOW_TESTS = ("tests/comfyui", "tests/browser")
NO_TESTS_COLLECTED = 5  # pytest's exit status


@dataclass(frozen=True)
class Check:
    """A program that says by its exit status whether the repository is in order."""

    name: str
    command: tuple[str | Path, ...]


@dataclass(frozen=True)
class Outcome:
    """How a check ended."""

    name: str
    passed: bool
    seconds: float


def static_checks(python: Path, *, with_structure: bool) -> list[Check]:
    """Style, types and layers; `with_structure` adds the structure tests, which the whole suite has in it."""
    run = (python, "-m")
    checks = [
        Check("ruff check", (*run, "ruff", "check", ".")),
        Check("ruff format", (*run, "ruff", "format", "--check", ".")),
        Check("pyright", (*run, "pyright", "--pythonpath", python)),
        Check(
            "import-linter", (python, "-c", "from importlinter.cli import lint_imports_command as run; run()")
        ),
    ]
    if with_structure:
        checks.append(Check("structure", (*run, "pytest", "tests/structure")))
    return checks


def tests(python: Path, *, fast: bool, arguments: Sequence[str]) -> Check:
    """The test suite; `fast` leaves out the real server and the browser, `arguments` go to pytest."""
    left_out = [f"--ignore={folder}" for folder in SLOW_TESTS] if fast else []
    return Check("pytest", (python, "-m", "pytest", "-ra", "--durations=10", *left_out, *arguments))


def run_checks(layout: Layout, checks: Sequence[Check], *, comfyui: Path) -> list[Outcome]:
    """Run every check, whatever the others say, with its output on the terminal."""
    environment = child_environment(
        {
            "PYTHONPATH": str(layout.packages),
            "COMFYUI_PATH": str(comfyui),
            "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
        }
    )
    outcomes: list[Outcome] = []
    for check in checks:
        section(check.name)
        sys.stdout.flush()
        started = time.monotonic()
        command = [str(part) for part in check.command]
        status = subprocess.run(
            command, cwd=layout.root, env=environment, stdin=subprocess.DEVNULL
        ).returncode
        outcomes.append(Outcome(check.name, status == 0, time.monotonic() - started))
    return outcomes


def summary(outcomes: Sequence[Outcome], notes: Sequence[str]) -> bool:
    """Print how every check ended; returns whether all passed."""
    section("Summary")
    for outcome in outcomes:
        say(
            f"{'passed' if outcome.passed else 'FAILED'}  {outcome.name:14s} {duration(outcome.seconds):>12s}"
        )
    for note in notes:
        say(f"note: {note}")
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    say(f"failed: {', '.join(failed)}" if failed else "everything passed")
    return not failed


def browser_note() -> str | None:
    """Why the browser test will not run here, None when it will."""
    if any(shutil.which(name) for name in BROWSERS):
        return None
    if in_ci():
        return "no Chromium on this machine: the browser test fails in CI"
    return "no Chromium on this machine: the browser test is skipped (Debian: apt-get install chromium)"


def in_ci() -> bool:
    """Whether this is a CI run, where nothing may be skipped for want of a program."""
    return os.environ.get("CI", "").lower() in {"1", "true"}
