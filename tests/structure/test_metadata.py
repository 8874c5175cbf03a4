"""pyproject.toml, requirements.txt and __init__.py agree, and ComfyUI and its registry can read them."""

import ast
import json
import re

import pytest

from .source import ROOT

tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")

# ComfyUI's own requirements; the first three are never the pack's business.
NEVER = {"torch", "torchvision", "torchaudio"}
OF_COMFYUI = {
    "numpy",
    "einops",
    "transformers",
    "sentencepiece",
    "safetensors",
    "scipy",
    "tqdm",
    "psutil",
    "av",
}
SYSTEMS = ("Microsoft", "POSIX", "MacOS", "OS Independent")
ACCELERATORS = {"NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal"}


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def requirements():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_pyproject_lists_the_requirements_of_requirements_txt(pyproject, requirements):
    assert sorted(pyproject["project"]["dependencies"]) == sorted(requirements)


def test_requirements_have_lower_bounds_only(requirements):
    assert requirements
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z,]+\])?>=[0-9.]+", line) for line in requirements)


def test_requirements_leave_out_what_comfyui_brings(requirements):
    names = {re.split(r"[\[><=]", line)[0].lower() for line in requirements}
    assert not names & (NEVER | OF_COMFYUI)


def test_version_is_the_same_in_pyproject_and_the_package(pyproject):
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    stated = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert stated == [pyproject["project"]["version"]]


def test_version_is_semantic(pyproject):
    assert re.fullmatch(r"\d+\.\d+\.\d+", pyproject["project"]["version"])


def test_registry_name_is_allowed(pyproject):
    name = pyproject["project"]["name"]
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,98}", name)
    assert "comfyui" not in name


def test_every_classifier_is_one_that_comfyui_knows(pyproject):
    """One wrong value makes ComfyUI drop all of them."""
    for classifier in pyproject["project"]["classifiers"]:
        kind, _, value = classifier.partition(" :: ")
        if kind == "Operating System":
            assert value.startswith(SYSTEMS)
        else:
            assert kind == "Environment"
            assert value.removeprefix("GPU :: ") in ACCELERATORS


def test_files_that_pyproject_names_exist(pyproject):
    assert (ROOT / pyproject["project"]["readme"]).is_file()
    assert (ROOT / pyproject["project"]["license"]["file"]).is_file()


def test_comfyui_section_is_complete(pyproject):
    comfy = pyproject["tool"]["comfy"]
    assert comfy["PublisherId"]
    assert comfy["DisplayName"]
    assert re.fullmatch(r">=\d+\.\d+(\.\d+)?", comfy["requires-comfyui"])


def test_everything_the_development_command_installs_has_an_exact_version():
    folder = ROOT / "tools" / "development"
    lines = (folder / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    asked = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {re.sub(r"\[.*", "", line) for line in asked if not line.startswith("#")}
    assert {"torch", "pytest"} <= names <= pinned


def test_torch_is_the_version_that_its_companions_exist_for():
    text = (ROOT / "tools" / "development" / "constraints.txt").read_text(encoding="utf-8")
    for pin in ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"):
        assert pin in text.splitlines()


def test_every_example_workflow_has_its_api_twin():
    """The twins lie in a folder of their own, because ComfyUI offers every workflow here as a template."""
    folder = ROOT / "example_workflows"
    templates = {path.name for path in folder.glob("*.json")}
    assert templates
    assert templates == {path.name for path in (folder / "api").glob("*.json")}


def test_templates_are_in_the_format_of_the_user_interface():
    for path in (ROOT / "example_workflows").glob("*.json"):
        assert {"nodes", "links", "version"} <= set(json.loads(path.read_text(encoding="utf-8"))), path.name
