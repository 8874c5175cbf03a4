"""Models in several files."""

import json

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from safetensors.torch import save_file

NAMES = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path):
    weight_map = {}
    for index, name in enumerate(NAMES):
        save_file({f"part{index}": torch.full((2,), float(index))}, tmp_path / name, {"format": "pt"})
        weight_map[f"part{index}"] = name
    index = {"metadata": {"total_size": 24}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize("name", [*NAMES, "model.safetensors.index.json"])
def test_any_part_or_the_index_opens_all_parts(folder, name):
    checkpoint = Checkpoint.open(folder / name)
    assert [checkpoint.tensor(f"part{index}")[0].item() for index in range(3)] == [0, 1, 2]


def test_the_fingerprint_covers_all_parts(folder):
    before = Checkpoint.open(folder / NAMES[0]).fingerprint()
    save_file({"part2": torch.zeros(9)}, folder / NAMES[2])
    assert Checkpoint.open(folder / NAMES[0]).fingerprint() != before


@pytest.mark.parametrize("name", [NAMES[0], "model.safetensors.index.json"])
def test_a_missing_part_is_named(folder, name):
    (folder / NAMES[1]).unlink()
    with pytest.raises(ModelFileError, match=rf"model of 3 safetensors files.*{NAMES[1]}"):
        Checkpoint.open(folder / name)


def test_a_cut_part_is_named(folder):
    path = folder / NAMES[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=rf"{NAMES[1]}: is cut off: 1 of"):
        Checkpoint.open(folder / NAMES[0])


def test_a_single_part_of_one_is_an_ordinary_file(tmp_path):
    path = tmp_path / "model-00001-of-00001.safetensors"
    save_file({"w": torch.ones(2)}, path)
    assert Checkpoint.open(path).files == (path,)


def test_an_index_that_points_elsewhere_is_refused(folder):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "../other/secret.safetensors"}}))
    with pytest.raises(ModelFileError, match="outside its own folder"):
        Checkpoint.open(index)


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"weight_map": 5}'])
def test_a_damaged_index_is_refused(folder, text):
    index = folder / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(ModelFileError, match="not a safetensors index"):
        Checkpoint.open(index)
