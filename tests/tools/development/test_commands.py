"""The command as it is called."""

import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_wanvideo.tools.development import checks

DEV = Path(__file__).resolve().parents[3] / "tools" / "dev.py"


def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, DEV, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", ["setup", "demo", "serve", "test", "lint"])
def test_every_command_has_help(command):
    done = call(command, "--help")
    assert done.returncode == 0
    assert "--comfyui" in done.stdout


def test_two_of_three_model_files_are_refused_before_anything_is_installed():
    done = call("demo", "--checkpoint", "a.safetensors", "--vae", "b.safetensors")
    assert done.returncode == 1
    assert "--t5 is missing" in done.stderr
    assert "==" not in done.stdout


def test_a_missing_model_file_is_named_before_anything_is_installed(tmp_path):
    (tmp_path / "a").touch()
    there = str(tmp_path / "a")
    done = call("demo", "--checkpoint", there, "--t5", there, "--vae", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "--vae names" in done.stderr
    assert "==" not in done.stdout


def test_a_wrong_comfyui_fails_with_one_sentence(tmp_path):
    done = call("setup", "--python", sys.executable, "--comfyui", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("\nFailed: --comfyui names")
    assert "Traceback" not in done.stderr


def test_unknown_arguments_are_refused_where_nobody_takes_them():
    assert call("lint", "--frobnicate").returncode == 2


def test_the_summary_names_what_failed(capsys):
    outcomes = [checks.Outcome("ruff check", True, 0.5), checks.Outcome("pytest", False, 61.0)]
    assert checks.summary(outcomes, ["a note"]) is False
    shown = capsys.readouterr().out
    assert "FAILED  pytest" in shown
    assert "1 min 1 s" in shown
    assert "failed: pytest" in shown
    assert "a note" in shown


def test_the_summary_of_a_clean_run_passes(capsys):
    assert checks.summary([checks.Outcome("ruff check", True, 0.5)], []) is True
    assert "everything passed" in capsys.readouterr().out


def test_fast_leaves_out_the_server_and_the_browser():
    command = checks.tests(Path("python"), fast=True, arguments=["-k", "vae"]).command
    assert {"--ignore=tests/comfyui", "--ignore=tests/browser"} <= set(command)
    assert command[-2:] == ("-k", "vae")
