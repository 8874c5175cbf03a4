"""The parts of the demo that need no server; ``tests/comfyui`` runs the same client against a real one."""

import pytest
import yaml
from comfyui_wanvideo.tools.development.client import Event, Result
from comfyui_wanvideo.tools.development.console import DevError
from comfyui_wanvideo.tools.development.demo import ProgressLines, tiny_names, use_models
from comfyui_wanvideo.tools.development.layout import Layout


def test_folders_of_real_files_are_registered_whatever_characters_they_have(tmp_path):
    files = {}
    for meaning, folder in (("checkpoint", "it's: # odd"), ("t5", 'with "quotes"'), ("vae", "plain")):
        (tmp_path / folder).mkdir()
        files[meaning] = tmp_path / folder / f"{meaning}.safetensors"
        files[meaning].touch()
    models = use_models(Layout(tmp_path), files)
    option, config = models.arguments
    with open(config, encoding="utf-8") as file:
        registered = yaml.safe_load(file)["demo"]
    assert option == "--extra-model-paths-config"
    assert registered == {
        "diffusion_models": str(files["checkpoint"].parent),
        "text_encoders": str(files["t5"].parent),
        "vae": str(files["vae"].parent),
    }
    assert models.names == {meaning: f"{meaning}.safetensors" for meaning in files}


def test_a_missing_tiny_model_is_named(tmp_path):
    with pytest.raises(DevError, match="tiny_wan21_t2v"):
        tiny_names(tmp_path)


def test_progress_shows_every_node_with_its_steps_when_it_is_done(capsys):
    progress = ProgressLines({"1": {"class_type": "Loader"}, "2": {"class_type": "Sampler"}})
    progress.show(Event("executing", {"node": "1"}, 0.0))
    progress.show(Event("executing", {"node": "2"}, 1.0))
    for step in (1, 2, 3):
        progress.show(Event("progress", {"node": "2", "value": step, "max": 3}, 1.0 + step))
    progress.show(Event("executing", {"node": None}, 5.0))
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["   [1/2] Loader  1.0 s", "   [2/2] Sampler  4.0 s, 3 steps"]


def test_progress_of_another_node_is_not_mixed_in(capsys):
    progress = ProgressLines({"1": {"class_type": "Loader"}})
    progress.show(Event("executing", {"node": "1"}, 0.0))
    progress.show(Event("progress", {"node": "7", "value": 1, "max": 9}, 0.5))
    progress.show(Event("executing", {"node": None}, 1.0))
    assert capsys.readouterr().out == "   [1/1] Loader  1.0 s\n"


def test_files_of_a_result_are_those_its_nodes_report():
    outputs = {
        "9": {"images": [{"filename": "a.mp4", "subfolder": "video", "type": "output"}], "animated": [True]}
    }
    (file,) = Result("success", outputs=outputs).files()
    assert (file.filename, file.subfolder, file.type) == ("a.mp4", "video", "output")
