"""The demo: from nothing to a video, through a real ComfyUI server and its HTTP API."""

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .client import Client, Event, Result
from .comfyui import version_of
from .console import DevError, StatusLine, child_environment, duration, run_logged, say, section
from .environment import fingerprint_of
from .layout import PACK_NAME, Layout
from .server import NO_DOWNLOADS, Server, ServerPlan, free_port
from .workflow import Changes, changed, read_prompt

TINY_SIZE = Changes(width=128, height=128, frames=17, steps=6)
RUN_SECONDS = 24 * 3600.0  # real models on a CPU take long; Ctrl-C ends it at any time
MODEL_FOLDERS = {"checkpoint": "diffusion_models", "t5": "text_encoders", "vae": "vae"}
TINY_FILES = {"checkpoint": "tiny_wan21_t2v_*", "t5": "tiny_umt5_xxl_*", "vae": "tiny_wan21_vae_*"}
ACCELERATOR_CODE = """
import torch
xpu = getattr(torch, "xpu", None)
print(torch.cuda.get_device_name() if torch.cuda.is_available()
      else "Apple GPU" if torch.backends.mps.is_available()
      else "Intel GPU" if xpu is not None and xpu.is_available() else "")
"""


@dataclass(frozen=True)
class DemoPlan:
    """What to run.

    Args:
        workflow: a workflow in API format.
        models: real model files by meaning ("checkpoint", "t5", "vae"); empty for tiny random ones.
        changes: what the user asked for, besides the files.
        on_cpu: leave a GPU alone.
    """

    workflow: Path
    models: Mapping[str, Path]
    changes: Changes
    on_cpu: bool


@dataclass(frozen=True)
class ModelFiles:
    """Model file names as ComfyUI will list them, and the ComfyUI arguments that make it find them."""

    names: Mapping[str, str]
    arguments: tuple[str, ...]


def run_demo(layout: Layout, plan: DemoPlan, *, python: Path, comfyui: Path) -> None:
    """Make the video and its contact sheet, and print where they are.

    Raises:
        DevError: a step failed.
    """
    files = use_models(layout, plan.models) if plan.models else make_tiny_models(layout, python)
    prompt = changed(read_prompt(plan.workflow), _all_changes(plan, files))
    section("Server")
    arguments = (*device_arguments(python, on_cpu=plan.on_cpu), *files.arguments)
    server_plan = ServerPlan(
        python=python,
        comfyui=comfyui,
        base=layout.base,
        packs={PACK_NAME: layout.root},
        port=free_port(),
        log=layout.logs / "demo-server.log",
        arguments=arguments,
        variables=NO_DOWNLOADS,
    )
    started = time.monotonic()
    say(f"starting ComfyUI {version_of(comfyui)} on {server_plan.address}; its log: {server_plan.log}")
    with Server(server_plan) as server:
        say(f"ready after {duration(time.monotonic() - started)}")
        for failure in server.import_failures():
            say(f"warning: {failure.strip()}")
        client = Client(server_plan.address)
        result = run_prompt(client, prompt, server=server)
        video = fetch_video(client, result, layout.demo)
    make_contact_sheet(video, python=python)


def make_tiny_models(layout: Layout, python: Path) -> ModelFiles:
    """Write tiny random checkpoints into the base directory's model folders, unless they are there.

    Raises:
        DevError: the generator failed.
    """
    section("Tiny random models")
    models = layout.base / "models"
    script = layout.root / "tools" / "tiny_checkpoints.py"
    fingerprint = fingerprint_of([script, *sorted(script.with_name("tiny").glob("*.py"))])
    stamp = layout.dev / "tiny-models.txt"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == fingerprint:
        say(f"already in {models}")
        return ModelFiles(tiny_names(models), ())
    run_logged(
        [python, script, "--out", models],
        log=layout.logs / "tiny-models.log",
        failure="Could not write the tiny models",
    )
    stamp.write_text(fingerprint, encoding="ascii")
    say(f"in {models}")
    return ModelFiles(tiny_names(models), ())


def use_models(layout: Layout, models: Mapping[str, Path]) -> ModelFiles:
    """Register the folders of real model files with ComfyUI; nothing is copied."""
    section("Model files")
    for meaning, path in models.items():
        say(f"{meaning}: {path} ({path.stat().st_size / 1e9:.2f} GB)")
    folders = {MODEL_FOLDERS[meaning]: str(path.parent) for meaning, path in models.items()}
    layout.demo.mkdir(parents=True, exist_ok=True)
    config = layout.demo / "extra_model_paths.yaml"
    # JSON strings are YAML strings, whatever characters the path has.
    lines = ["demo:", *(f"  {folder}: {json.dumps(path)}" for folder, path in folders.items())]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = {meaning: path.name for meaning, path in models.items()}
    return ModelFiles(names, ("--extra-model-paths-config", str(config)))


def device_arguments(python: Path, *, on_cpu: bool) -> tuple[str, ...]:
    """ComfyUI's arguments for the device: ``--cpu`` when torch sees no GPU or none is wanted."""
    if on_cpu:
        say("device: CPU (as asked for)")
        return ("--cpu",)
    found = subprocess.run(
        [python, "-c", ACCELERATOR_CODE], capture_output=True, text=True, env=child_environment()
    )
    if found.returncode:
        raise DevError(f"torch does not start in {python}:\n{found.stderr.strip()[-2000:]}")
    device = found.stdout.strip()
    say(f"device: {device or 'CPU (torch sees no GPU)'}")
    return () if device else ("--cpu",)


def run_prompt(client: Client, prompt: Mapping[str, Any], *, server: Server) -> Result:
    """Queue the prompt, show its progress, and return its result.

    Raises:
        DevError: a node failed or refused its inputs.
    """
    section("Run")
    say(f"{len(prompt)} nodes sent to the server")
    progress = ProgressLines(prompt)
    try:
        result = client.execute(prompt, on_event=progress.show, seconds=RUN_SECONDS)
    except ConnectionError as error:
        raise DevError(f"The server went away during the run: {error}.\n{server.log_tail()}") from error
    if result.status != "success":
        reasons = [f"{e.class_type or 'workflow'}: {e.message}" for e in result.errors]
        message = "\n     ".join([f"The run ended as {result.status!r}.", *reasons])
        raise DevError(f"{message}\nFull log: {server.plan.log}")
    progress.finish()
    say(f"finished after {duration(result.seconds)}")
    return result


class ProgressLines:
    """Shows a run: one line per node when it is done, with the steps of a long one as they go."""

    def __init__(self, prompt: Mapping[str, Any]) -> None:
        self._names = {node_id: node["class_type"] for node_id, node in prompt.items()}
        self._line = StatusLine()
        self._node: str | None = None
        self._since = 0.0
        self._steps = ""
        self._done = 0

    def show(self, event: Event) -> None:
        """Take one message of the server."""
        if event.name == "executing":
            self._begin(event.content.get("display_node") or event.content.get("node"), event.seconds)
        elif event.name == "progress" and str(event.content.get("node")) == self._node:
            value, most = int(event.content["value"]), int(event.content["max"])
            steps = f"{value}/{most}" if most > 1 else ""
            if steps and steps != self._steps:
                self._steps = steps
                self._line.update(f"{self._label()}  step {steps}")

    def finish(self) -> None:
        """End the last line."""
        self._begin(None, self._since)

    def _begin(self, node: str | None, seconds: float) -> None:
        if self._node is not None:
            steps = f", {self._steps.partition('/')[2]} steps" if self._steps else ""
            self._line.finish(f"{self._label()}  {duration(seconds - self._since)}{steps}")
        self._node, self._since, self._steps = node, seconds, ""
        if node is not None:
            self._done += 1
            self._line.update(self._label())

    def _label(self) -> str:
        name = self._names.get(self._node or "", self._node)
        return f"[{self._done}/{len(self._names)}] {name}"


def fetch_video(client: Client, result: Result, folder: Path) -> Path:
    """Download the run's video into `folder`.

    Raises:
        DevError: the run made no video.
    """
    section("Result")
    videos = [file for file in result.files() if file.filename.endswith((".mp4", ".webm", ".mkv"))]
    if not videos:
        raise DevError("The run finished, but no node reports a video file.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / videos[-1].filename
    path.write_bytes(client.view(videos[-1]))
    return path


def make_contact_sheet(video: Path, *, python: Path) -> Path:
    """Write the contact sheet beside the video and print both paths.

    Raises:
        DevError: the video can not be read.
    """
    picture = video.with_suffix(".png")
    made = subprocess.run(
        [python, Path(__file__).with_name("contact_sheet.py"), video, picture],
        capture_output=True,
        text=True,
        env=child_environment(),
    )
    if made.returncode:
        raise DevError(f"The video {video} can not be read:\n{made.stderr.strip()[-2000:]}")
    say(f"video:         {video}  ({made.stdout.strip()} frames)")
    say(f"contact sheet: {picture}")
    return picture


def _all_changes(plan: DemoPlan, files: ModelFiles) -> Changes:
    asked = {name: value for name, value in vars(plan.changes).items() if value is not None}
    size = {} if plan.models else {k: v for k, v in vars(TINY_SIZE).items() if v is not None}
    return Changes(**{**size, **asked, **files.names})


def tiny_names(models: Path) -> dict[str, str]:
    """The tiny files for plain text to video below a models folder, by meaning.

    Raises:
        DevError: one is missing.
    """
    names: dict[str, str] = {}
    for meaning, folder in MODEL_FOLDERS.items():
        found = sorted(path.name for path in (models / folder).glob(TINY_FILES[meaning]))
        if not found:
            raise DevError(f"There is no {TINY_FILES[meaning]} in {models / folder}.")
        names[meaning] = found[0]
    return names
