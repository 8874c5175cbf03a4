"""The sub-commands and their options."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import checks, comfyui, environment
from .console import DevError, duration, say, section
from .demo import DemoPlan, device_arguments, run_demo
from .environment import Environment
from .layout import PACK_NAME, Layout
from .server import Server, ServerPlan
from .workflow import Changes

INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Run one sub-command; returns the exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in {"test", "serve"}:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    options.rest = [argument for argument in rest if argument != "--"]
    try:
        return options.run(options)
    except DevError as error:
        print(f"\nFailed: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr, flush=True)
        return INTERRUPTED


def _terminate(*_: object) -> None:
    """Turn a termination into Ctrl-C, so that servers are stopped."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev.py", description="Set up, try, serve and test the pack.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = _common_options()

    def add(name: str, run: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[common], help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        return command

    add("setup", _setup, "Prepare the environment and ComfyUI, and nothing else.")
    _add_demo_options(
        add("demo", _demo, "Make a video with tiny random models, or with real ones, in a real ComfyUI.")
    )
    serve = add("serve", _serve, "Run ComfyUI with this pack until Ctrl-C; other arguments go to ComfyUI.")
    serve.add_argument("--port", type=int, default=8188, help="port on this machine (8188)")
    serve.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    test = add("test", _test, "Run every check and test; other arguments go to pytest.")
    test.add_argument("--fast", action="store_true", help="without the real server and the browser")
    add("lint", _lint, "Run ruff, pyright, import-linter and the structure tests.")
    return parser


def _common_options() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--comfyui",
        metavar="PATH",
        help="the ComfyUI to use (else COMFYUI_PATH, the one around the pack, or a downloaded one)",
    )
    place = common.add_mutually_exclusive_group()
    place.add_argument(
        "--venv",
        metavar="PATH",
        help="environment to use instead of .venv; what is missing is installed there",
    )
    place.add_argument(
        "--python", metavar="PATH", help="interpreter to use exactly as it is; nothing is installed"
    )
    return common


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("--checkpoint", metavar="FILE", help="a real Wan text-to-video model")
    demo.add_argument("--t5", metavar="FILE", help="its text encoder (UMT5-XXL)")
    demo.add_argument("--vae", metavar="FILE", help="its VAE")
    demo.add_argument("--text", metavar="PROMPT", help="what the video shows")
    demo.add_argument("--steps", type=int, help="sampling steps")
    demo.add_argument("--frames", type=int, help="frames, 4n+1")
    demo.add_argument("--width", type=int, help="pixels")
    demo.add_argument("--height", type=int, help="pixels")
    demo.add_argument("--seed", type=int, help="of the noise")
    demo.add_argument("--workflow", metavar="FILE", help="another workflow in API format")
    demo.add_argument("--cpu", action="store_true", help="leave the GPU alone")


def _prepare(options: argparse.Namespace) -> tuple[Layout, Environment, Path]:
    layout = Layout()
    place = environment.prepare(layout, venv=options.venv, python=options.python)
    source = comfyui.prepare(layout, given=options.comfyui, python=place.python)
    place.install(layout, source)
    return layout, place, source


def _setup(options: argparse.Namespace) -> int:
    started = time.monotonic()
    _, place, source = _prepare(options)
    section("Ready")
    say(f"Python:  {place.python}")
    say(f"ComfyUI: {source} ({comfyui.version_of(source)})")
    say(f"set-up took {duration(time.monotonic() - started)}")
    return 0


def _demo(options: argparse.Namespace) -> int:
    models = {name: getattr(options, name) for name in ("checkpoint", "t5", "vae") if getattr(options, name)}
    if models and len(models) < 3:
        missing = [f"--{name}" for name in ("checkpoint", "t5", "vae") if name not in models]
        raise DevError(f"Real models come in threes: {' and '.join(missing)} is missing.")
    for name, path in models.items():
        if not Path(path).expanduser().is_file():
            raise DevError(f"--{name} names {path}, which is no file.")
    layout, place, source = _prepare(options)
    plan = DemoPlan(
        workflow=Path(options.workflow or layout.root / "example_workflows" / "api" / "t2v.json"),
        models={name: Path(path).expanduser().absolute() for name, path in models.items()},
        changes=Changes(
            text=options.text,
            steps=options.steps,
            frames=options.frames,
            width=options.width,
            height=options.height,
            seed=options.seed,
        ),
        on_cpu=options.cpu,
    )
    run_demo(layout, plan, python=place.python, comfyui=source)
    return 0


def _serve(options: argparse.Namespace) -> int:
    layout, place, source = _prepare(options)
    section("Server")
    plan = ServerPlan(
        python=place.python,
        comfyui=source,
        base=layout.base,
        packs={PACK_NAME: layout.root},
        port=options.port,
        arguments=(*device_arguments(place.python, on_cpu=options.cpu), *options.rest),
    )
    say(f"models, input and output are in {layout.base}")
    say("other model folders: --extra-model-paths-config FILE (ComfyUI's own option)")
    with Server(plan) as server:
        say(f"open http://{plan.address} - Ctrl-C stops the server")
        return server.wait()


def _test(options: argparse.Namespace) -> int:
    layout, place, source = _prepare(options)
    to_run = [
        *checks.static_checks(place.python, with_structure=False),
        checks.tests(place.python, fast=options.fast, arguments=options.rest),
    ]
    notes = ["--fast: tests/comfyui and tests/browser were left out"] if options.fast else []
    if not options.fast and (note := checks.browser_note()):
        notes.append(note)
    return 0 if checks.summary(checks.run_checks(layout, to_run, comfyui=source), notes) else 1


def _lint(options: argparse.Namespace) -> int:
    layout, place, source = _prepare(options)
    to_run = checks.static_checks(place.python, with_structure=True)
    return 0 if checks.summary(checks.run_checks(layout, to_run, comfyui=source), []) else 1
