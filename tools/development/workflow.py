"""Fit a shipped workflow to the files and the size of a run."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .console import DevError

# Inputs by what they mean, as (node class, input name); one place for the demo and the browser test.
INPUTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "checkpoint": (("WanVideoModelLoader", "model"),),
    "t5": (("LoadWanVideoT5TextEncoder", "model_name"), ("WanVideoTextEncodeCached", "model_name")),
    "vae": (("WanVideoVAELoader", "model_name"),),
    "width": (("WanVideoEmptyEmbeds", "width"),),
    "height": (("WanVideoEmptyEmbeds", "height"),),
    "frames": (("WanVideoEmptyEmbeds", "num_frames"),),
    "steps": (("WanVideoSampler", "steps"),),
    "seed": (("WanVideoSampler", "seed"),),
    "text": (("WanVideoTextEncode", "positive_prompt"), ("WanVideoTextEncodeCached", "positive_prompt")),
}


@dataclass(frozen=True)
class Changes:
    """What to put into a workflow; None keeps what the workflow says.

    Args:
        checkpoint, t5, vae: file names as ComfyUI lists them.
        width, height: pixels.
        frames: pixel frames.
        steps: sampling steps.
        seed: of the noise.
        text: the positive prompt.
    """

    checkpoint: str | None = None
    t5: str | None = None
    vae: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    steps: int | None = None
    seed: int | None = None
    text: str | None = None

    def values(self) -> dict[tuple[str, str], Any]:
        """The new values by (node class, input name)."""
        return {
            place: value
            for meaning, places in INPUTS.items()
            if (value := getattr(self, meaning)) is not None
            for place in places
        }


def read_prompt(path: Path) -> dict[str, Any]:
    """Read a workflow in API format.

    Raises:
        DevError: there is no such file, or it is in the format of the user interface.
    """
    if not path.is_file():
        raise DevError(f"There is no workflow {path}.")
    prompt = json.loads(path.read_text(encoding="utf-8"))
    if not all(isinstance(node, dict) and "class_type" in node for node in prompt.values()):
        raise DevError(f"{path} is not in API format (ComfyUI: Workflow > Export (API)).")
    return prompt


def changed(prompt: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Return a copy of a prompt with the changes made.

    Raises:
        DevError: no node of the prompt takes one of the values, so the run would not be what was asked for.
    """
    result = copy.deepcopy(dict(prompt))
    present = {(node["class_type"], name) for node in result.values() for name in node["inputs"]}
    for meaning, places in INPUTS.items():
        if getattr(changes, meaning) is not None and not any(place in present for place in places):
            raise DevError(
                f"The workflow has no input for {meaning} ({', '.join('.'.join(p) for p in places)})."
            )
    values = changes.values()
    for node in result.values():
        for name in node["inputs"]:
            if (node["class_type"], name) in values:
                node["inputs"][name] = values[node["class_type"], name]
    return result
