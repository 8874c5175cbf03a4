"""Write the example workflows: ``python3 tools/example_workflows.py [--check] [--draw]``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import fun, i2v_wan21, i2v_wan22, phantom, t2v, ti2v_5b, uni3c, upscale, vace
from .graph import api_form, ui_form

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "example_workflows"
WORKFLOWS = (
    t2v.WAN21,
    t2v.WAN22,
    i2v_wan21.PICTURE,
    i2v_wan21.FIRST_AND_LAST,
    i2v_wan22.PICTURE,
    i2v_wan22.LOOP,
    i2v_wan22.ONLY,
    upscale.ONLY,
    ti2v_5b.WORKFLOW,
    fun.INPAINT,
    fun.CONTROL,
    fun.CAMERA,
    phantom.WORKFLOW,
    vace.CONTROL,
    vace.START_END,
    uni3c.WORKFLOW,
)


def files() -> dict[Path, dict[str, Any]]:
    """Path -> content of every shipped workflow file."""
    found: dict[Path, dict[str, Any]] = {}
    for workflow in WORKFLOWS:
        found[FOLDER / f"{workflow.name}.json"] = ui_form(workflow)
        found[FOLDER / "api" / f"{workflow.name}.json"] = api_form(workflow)
    return found


def main() -> int:
    """Write the files, or with ``--check`` say which differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    parser.add_argument("--draw", action="store_true", help="draw all thumbnails anew, not only missing ones")
    asked = parser.parse_args()
    stale = 0
    for path, content in files().items():
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if asked.check:
            print(f"differs: {path.relative_to(ROOT)}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if not asked.check:
        _draw_thumbnails(everything=asked.draw)
    return 1 if asked.check and stale else 0


def _draw_thumbnails(*, everything: bool) -> None:
    """Draw what is missing, or everything: the pixels depend a little on the version of Pillow."""
    paths = {workflow.name: FOLDER / f"{workflow.name}.jpg" for workflow in WORKFLOWS}
    wanted = {name: path for name, path in paths.items() if everything or not path.exists()}
    if wanted:
        from . import thumbnail  # needs Pillow, which the JSON files do not

        for name, path in wanted.items():
            thumbnail.draw(name).save(path, quality=88)
            print(f"drew {path.relative_to(ROOT)}")
