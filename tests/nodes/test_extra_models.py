"""Files with further modules."""

from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from safetensors.torch import save_file


@pytest.fixture
def extra_models(node_module):
    return node_module("extra_models")


@pytest.fixture
def folder(comfyui_path, monkeypatch, tmp_path):
    import folder_paths

    entry = ([str(tmp_path)], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", entry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for name in ("vace", "mtv"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    return tmp_path


def test_chained_files_keep_their_order(extra_models, folder):
    first = extra_models.WanVideoVACEModelSelect.run("vace.safetensors").result[0]
    both = extra_models.WanVideoExtraModelSelect.run("mtv.safetensors", prev_model=first).result[0]
    assert both == (folder / "vace.safetensors", folder / "mtv.safetensors")


def test_a_file_that_is_not_there_is_refused_before_the_run(extra_models, folder):
    answer = extra_models.WanVideoVACEModelSelect.validate_inputs("other.safetensors")
    assert answer.startswith("vace_model: 'other.safetensors' is not in")


def test_a_file_that_is_cut_off_is_refused_before_the_run(extra_models, folder):
    path = folder / "vace.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "extra_model: vace.safetensors" in extra_models.WanVideoExtraModelSelect.validate_inputs(path.name)


def test_the_list_of_another_pack_is_read(extra_models):
    found = extra_models.as_paths([{"path": "a.safetensors"}], input_name="extra_model")
    assert found == (Path("a.safetensors"),)


@pytest.mark.parametrize("value", [3, [{"file": "a"}]])
def test_anything_else_on_the_socket_is_refused(extra_models, value):
    with pytest.raises(InputError, match="extra_model"):
        extra_models.as_paths(value, input_name="extra_model")
