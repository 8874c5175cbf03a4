"""PyTorch files: tensors are read, code is not run."""

import contextlib
import pickle

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

SUFFIXES = [".pt", ".pth", ".ckpt", ".bin"]


class Marker:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".safetensors"])
@pytest.mark.parametrize(
    "writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))]
)
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, suffix, writer):
    path, marker = tmp_path / f"evil{suffix}", tmp_path / "was-run"
    writer({"w": torch.ones(2), "x": Marker(marker)}, path)
    with pytest.raises(ModelFileError) as caught:
        Checkpoint.open(path)
    message = str(caught.value)
    assert message.startswith(path.name)
    assert "safetensors" in message.removeprefix(path.name)
    assert not marker.exists()


def test_the_refusal_says_pickle_and_weights_only_and_names_the_code(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"x": Marker(tmp_path / "was-run")}, path)
    with pytest.raises(ModelFileError, match=r"pickle that wants to run code \(io\.open\).*weights_only"):
        Checkpoint.open(path)


def test_a_pickled_module_is_refused(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ModelFileError, match="weights_only"):
        Checkpoint.open(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_come_back_bit_for_bit(tmp_path, suffix, dtype):
    tensor = torch.randn(5, 7).to(dtype)
    torch.save({"w": tensor}, tmp_path / f"model{suffix}")
    checkpoint = Checkpoint.open(tmp_path / f"model{suffix}")
    assert (checkpoint.shape("w"), checkpoint.dtype("w")) == ((5, 7), dtype)
    assert torch.equal(checkpoint.tensor("w"), tensor)


def test_a_file_of_the_old_format_opens(tmp_path):
    torch.save({"w": torch.arange(4.0)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert Checkpoint.open(tmp_path / "old.pth").tensor("w").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", "model_state_dict", "params_ema"])
def test_a_wrapped_state_dict_is_unwrapped(tmp_path, wrapper):
    torch.save({"epoch": 3, wrapper: {"w": torch.ones(2)}}, tmp_path / "model.pt")
    assert list(Checkpoint.open(tmp_path / "model.pt")) == ["w"]


def test_a_doubly_wrapped_state_dict_is_unwrapped(tmp_path):
    torch.save({"state_dict": {"module": {"w": torch.ones(2)}}}, tmp_path / "model.ckpt")
    assert list(Checkpoint.open(tmp_path / "model.ckpt")) == ["w"]


def test_values_that_are_no_tensors_are_left_out(tmp_path):
    torch.save({"w": torch.ones(2), "step": 5, "name": "x"}, tmp_path / "model.pt")
    assert list(Checkpoint.open(tmp_path / "model.pt")) == ["w"]


@pytest.mark.parametrize("content", [{}, {"a": 1}, [torch.ones(2)], 5, {"state_dict": {}}])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "none.pt")
    with pytest.raises(ModelFileError, match=r"none\.pt: holds no tensors"):
        Checkpoint.open(tmp_path / "none.pt")


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, zipped, share):
    path = tmp_path_factory.mktemp("cut") / "cut.pt"
    torch.save({"w": torch.ones(64)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ModelFileError, match=r"cut\.pt"):
        Checkpoint.open(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("zipped", [True, False])
def test_a_changed_file_opens_or_is_refused_but_never_crashes(tmp_path_factory, zipped, data):
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.pt"
    torch.save({"w": torch.ones(4), "b": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    changed = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(changed))
    with contextlib.suppress(ModelFileError):
        assert len(Checkpoint.open(path)) > 0


def test_tensors_read_in_inference_mode_are_ordinary(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    with torch.inference_mode():
        tensor = Checkpoint.open(tmp_path / "model.pt").tensor("w")
    assert not tensor.is_inference()
