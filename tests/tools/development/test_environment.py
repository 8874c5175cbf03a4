"""The environment is installed once and reused while nothing it is made of changes."""

import sys
from pathlib import Path

import pytest
from comfyui_wanvideo.tools.development import environment
from comfyui_wanvideo.tools.development.console import DevError
from comfyui_wanvideo.tools.development.environment import Environment
from comfyui_wanvideo.tools.development.layout import IMPORT_NAME, Layout


@pytest.fixture
def installations(monkeypatch):
    """The pip commands that would have been run."""
    commands: list[list[str]] = []
    monkeypatch.setattr(
        environment, "run_logged", lambda command, **_: commands.append([str(part) for part in command])
    )
    return commands


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "requirements.txt").write_text("ftfy>=6.1\n")
    (tmp_path / "comfyui").mkdir()
    (tmp_path / "comfyui" / "requirements.txt").write_text("torch\n")
    (tmp_path / "env").mkdir()
    return Layout(tmp_path)


def install(checkout: Layout) -> None:
    Environment(Path(sys.executable), checkout.root / "env").install(checkout, checkout.root / "comfyui")


def test_the_first_set_up_installs_everything_at_the_pinned_versions(checkout, installations):
    install(checkout)
    (command,) = installations
    assert command[command.index("-c") + 1] == str(checkout.constraints)
    assert [command[i + 1] for i, part in enumerate(command) if part == "-r"] == [
        str(checkout.root / "comfyui" / "requirements.txt"),
        *map(str, checkout.requirements),
    ]


def test_the_second_set_up_installs_nothing(checkout, installations):
    install(checkout)
    install(checkout)
    assert len(installations) == 1


def test_a_changed_requirement_installs_again(checkout, installations):
    install(checkout)
    (checkout.root / "requirements.txt").write_text("ftfy>=6.3\n")
    install(checkout)
    assert len(installations) == 2


def test_a_failed_installation_is_tried_again(checkout, installations, monkeypatch):
    def fail(*_, **__):
        raise DevError("no network")

    with monkeypatch.context() as broken:
        broken.setattr(environment, "run_logged", fail)
        with pytest.raises(DevError, match="no network"):
            install(checkout)
    install(checkout)
    assert len(installations) == 1


def test_the_repository_gets_its_import_name(checkout, installations):
    install(checkout)
    assert (checkout.packages / IMPORT_NAME).resolve() == checkout.root


def test_an_interpreter_used_as_it_is_gets_nothing_installed(checkout, installations, monkeypatch):
    monkeypatch.setattr(environment, "NEEDED", ("json",))
    Environment(Path(sys.executable), None).install(checkout, checkout.root / "comfyui")
    assert installations == []


def test_an_interpreter_that_lacks_something_is_told_what(checkout, monkeypatch):
    monkeypatch.setattr(environment, "NEEDED", ("json", "no_such_module"))
    with pytest.raises(DevError, match=r"lacks no_such_module\."):
        Environment(Path(sys.executable), None).install(checkout, checkout.root / "comfyui")


def test_a_folder_with_other_things_is_not_made_an_environment(checkout):
    (checkout.root / "things").mkdir()
    (checkout.root / "things" / "photo.png").touch()
    with pytest.raises(DevError, match="neither a working environment nor an empty folder"):
        environment.prepare(checkout, venv=str(checkout.root / "things"), python=None)
    assert (checkout.root / "things" / "photo.png").exists()


def test_an_interpreter_that_does_not_start_is_refused(checkout):
    with pytest.raises(DevError, match="does not start"):
        environment.prepare(checkout, venv=None, python=str(checkout.root / "python"))
