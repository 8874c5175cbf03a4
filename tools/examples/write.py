"""Write the example workflows: ``python3 tools/example_workflows.py [--check]``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import t2v
from .graph import api_form, ui_form

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = (t2v.WORKFLOW,)
THUMBNAILS = {"t2v": "text_to_video"}  # workflow -> function in thumbnail.py


def files() -> dict[Path, dict[str, Any]]:
    """Path -> content of every shipped workflow file."""
    folder = ROOT / "example_workflows"
    found: dict[Path, dict[str, Any]] = {}
    for workflow in WORKFLOWS:
        found[folder / f"{workflow.name}.json"] = ui_form(workflow)
        found[folder / "api" / f"{workflow.name}.json"] = api_form(workflow)
    return found


def main() -> int:
    """Write the files, or with ``--check`` say which differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    check = parser.parse_args().check
    stale = 0
    for path, content in files().items():
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if check:
            print(f"differs: {path.relative_to(ROOT)}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if not check:
        _draw_missing_thumbnails()
    return 1 if check and stale else 0


def _draw_missing_thumbnails() -> None:
    folder = ROOT / "example_workflows"
    missing = {name: draw for name, draw in THUMBNAILS.items() if not (folder / f"{name}.jpg").exists()}
    if missing:
        from . import thumbnail  # needs Pillow, which the JSON files do not

        for name, draw in missing.items():
            getattr(thumbnail, draw)(folder / f"{name}.jpg")
            print(f"drew example_workflows/{name}.jpg")
