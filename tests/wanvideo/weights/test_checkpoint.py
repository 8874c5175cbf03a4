"""Opening model files."""

import contextlib
import json
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

REPOSITORY = Path(__file__).resolve().parents[3]
DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int8,
    torch.uint8,
    torch.int64,
    torch.bool,
)


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []


def refused(path):
    with pytest.raises(ModelFileError) as caught:
        Checkpoint.open(path)
    message = str(caught.value)
    assert path.name in message
    return message


def write_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=6),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_every_tensor_equals_what_the_safetensors_library_reads(tmp_path_factory, shapes, dtype, seed):
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"layer.{index}.weight": torch.randint(0, 100, shape, generator=generator).to(dtype)
        for index, shape in enumerate(shapes)
    }
    save_file(tensors, path)
    checkpoint = Checkpoint.open(path)
    expected = load_file(path)
    assert set(checkpoint.keys()) == set(expected)
    for key, tensor in expected.items():
        assert (checkpoint.shape(key), checkpoint.dtype(key)) == (tuple(tensor.shape), tensor.dtype)
        found = checkpoint.tensor(key)
        assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
        assert bits(found) == bits(tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_dtype_of_the_file_is_kept_bit_for_bit(make_file, make_tensors, dtype):
    tensors = make_tensors({"w": (16, 24)}, dtype)
    found = make_file(tensors).tensor("w")
    assert found.dtype == dtype
    assert bits(found) == bits(tensors["w"])


def test_asking_twice_gives_the_same_memory(make_file, make_tensors):
    checkpoint = make_file(make_tensors({"w": (16, 24)}))
    assert checkpoint.tensor("w").data_ptr() == checkpoint.tensor("w").data_ptr()


def test_a_tensor_outlives_its_checkpoint(make_file, make_tensors):
    tensors = make_tensors({"w": (64, 64)})
    found = make_file(tensors).tensor("w")
    assert torch.equal(found, tensors["w"])


def test_a_released_tensor_can_be_read_again(make_file, make_tensors):
    tensors = make_tensors({"a": (3,), "w": (256, 256), "b": (5,)})
    checkpoint = make_file(tensors)
    views = {key: checkpoint.tensor(key) for key in checkpoint}
    for key in checkpoint:
        checkpoint.release(key)
    assert all(torch.equal(views[key], tensors[key]) for key in tensors)


def test_metadata_is_read(make_file, make_tensors):
    checkpoint = make_file(make_tensors({"w": (2,)}), metadata={"modelspec.title": "Wan"})
    assert checkpoint.metadata["modelspec.title"] == "Wan"


def test_contains_len_and_iteration_agree_with_keys(make_file, make_tensors):
    checkpoint = make_file(make_tensors({"a": (2,), "b": (3,)}))
    assert "a" in checkpoint
    assert "c" not in checkpoint
    assert len(checkpoint) == 2
    assert sorted(checkpoint) == sorted(checkpoint.keys()) == ["a", "b"]


def test_byte_count_is_that_of_the_tensors(make_file, make_tensors):
    assert make_file(make_tensors({"a": (2, 3), "b": (5,)}, torch.bfloat16)).byte_count() == 22


def test_an_unknown_key_is_an_error_that_names_it(make_file, make_tensors):
    with pytest.raises(ModelFileError, match=r"model\.safetensors.*blocks\.9"):
        make_file(make_tensors({"a": (2,)})).tensor("blocks.9.weight")


def test_a_name_with_spaces_and_other_letters_opens(make_file, make_tensors):
    assert len(make_file(make_tensors({"a": (2,)}), name="w\u00e4n \u4e07 model.safetensors")) == 1


def test_unaligned_tensors_are_read(tmp_path):
    values = torch.arange(6, dtype=torch.float32)
    header = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [1, 25]}}
    path = write_header(tmp_path / "odd.safetensors", header, b"\x00" + values.numpy().tobytes())
    assert torch.equal(Checkpoint.open(path).tensor("w"), values.reshape(2, 3))


def test_tensors_opened_in_inference_mode_are_ordinary(make_file, make_tensors):
    with torch.inference_mode():
        tensor = make_file(make_tensors({"a": (2,)})).tensor("a")
    assert not tensor.is_inference()


@pytest.mark.skipif(sys.platform == "win32", reason="needs sparse files")
def test_a_file_of_50_gb_opens_and_gives_views(tmp_path):
    rows, columns = 5_000_000, 5_000
    header = {"w": {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [0, 2 * rows * columns]}}
    path = write_header(tmp_path / "large.safetensors", header)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2 * rows * columns)
    assert Checkpoint.open(path).tensor("w")[-1, -1] == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory counters")
def test_views_cost_no_memory_even_when_all_values_are_read(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({f"w{index}": torch.ones(8, 1 << 20, dtype=torch.bfloat16) for index in range(4)}, path)
    script = f"""
        import runpy, sys
        runpy.run_path({str(REPOSITORY / "tests" / "conftest.py")!r})
        from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
        import torch
        torch.set_num_threads(1)
        torch.aminmax(torch.ones(1 << 21, dtype=torch.bfloat16))
        def memory(name):
            line = next(line for line in open("/proc/self/status") if line.startswith(name))
            return int(line.split()[1]) * 1024
        before = memory("RssAnon"), memory("VmRSS")
        checkpoint = Checkpoint.open({str(path)!r})
        tensors = [checkpoint.tensor(key) for key in checkpoint]
        opened = memory("VmRSS") - before[1]
        for tensor in tensors:
            torch.aminmax(tensor)
        print(opened, memory("RssAnon") - before[0])
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    opened, read = map(int, result.stdout.split())
    assert opened < 8 << 20
    assert read < 8 << 20


@settings(max_examples=80, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, small_file_bytes, share):
    content, _ = small_file_bytes
    path = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    assert "safetensors" in refused(path).removeprefix("cut.safetensors")


@settings(max_examples=20, deadline=None)
@given(missing=st.integers(1, 172))
def test_the_message_says_how_many_bytes_are_missing(tmp_path_factory, small_file_bytes, missing):
    content, header_bytes = small_file_bytes
    assert missing <= len(content) - header_bytes
    path = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    path.write_bytes(content[: len(content) - missing])
    assert f"{missing} of {len(content)} bytes" in refused(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_changed_header_opens_or_is_refused_but_never_crashes(tmp_path_factory, small_file_bytes, data):
    content, header_bytes = small_file_bytes
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, header_bytes - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.safetensors"
    path.write_bytes(bytes(changed))
    with contextlib.suppress(ModelFileError):
        checkpoint = Checkpoint.open(path)
        for key in checkpoint:
            assert checkpoint.tensor(key).shape == checkpoint.shape(key)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=100, deadline=None)
@given(
    content=st.binary(max_size=300),
    suffix=st.sampled_from([".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".txt", ""]),
)
def test_noise_is_refused_whatever_it_is_called(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("noise") / f"noise{suffix}"
    path.write_bytes(content)
    assert refused(path).startswith(path.name)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}, "damaged"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}, "damaged"),
        ({"dtype": "F32", "shape": 4, "data_offsets": [0, 8]}, "damaged"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "damaged"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0]}, "damaged"),
        ({"shape": [2], "data_offsets": [0, 8]}, "cannot read"),
        ({"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}, "F4"),
        ("text", "damaged"),
    ],
)
def test_an_impossible_entry_is_refused_with_its_key(tmp_path, entry, reason):
    message = refused(write_header(tmp_path / "bad.safetensors", {"some.key": entry}, bytes(8)))
    assert "some.key" in message
    assert reason in message


def test_a_file_without_tensors_is_refused(tmp_path):
    assert "without any tensors" in refused(write_header(tmp_path / "none.safetensors", {}))


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>", b"\n\n  <html lang=en>", b"\xef\xbb\xbf<!doctype HTML>"]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_web_page_is_named_as_such(tmp_path, page, suffix):
    path = tmp_path / f"page{suffix}"
    path.write_bytes(page + b" <body>404</body>")
    assert "is a web page (HTML), not a model (safetensors): download it again" in refused(path)


def test_a_git_lfs_pointer_is_named_as_such(tmp_path):
    path = tmp_path / "pointer.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n")
    assert "git-lfs pointer" in refused(path)


@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors"])
def test_gguf_is_recognised_by_content(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(64))
    assert "is a GGUF file without any tensors" in refused(path)


def test_an_empty_file_is_named_as_such(tmp_path):
    path = tmp_path / "empty.safetensors"
    path.touch()
    assert "is empty (0 bytes)" in refused(path)


def test_a_folder_is_named_as_such(tmp_path):
    path = tmp_path / "folder.safetensors"
    path.mkdir()
    assert "is a folder" in refused(path)


def test_a_missing_file_is_named_with_its_folder(tmp_path):
    assert f"no such file in {tmp_path}" in refused(tmp_path / "gone.safetensors")


def test_a_file_that_shrinks_while_open_is_refused(make_file, make_tensors):
    checkpoint = make_file(make_tensors({"w": (64, 64)}))
    with checkpoint.path.open("r+b") as file:
        file.truncate(200)
    with pytest.raises(ModelFileError, match="became shorter"):
        checkpoint.tensor("w")


def test_renamed_gives_other_names_to_the_same_tensors(make_file, make_tensors):
    checkpoint = make_file(make_tensors({"model.a": (2,), "model.b": (3,)}))
    renamed = checkpoint.renamed(lambda key: key.removeprefix("model."))
    assert sorted(renamed.keys()) == ["a", "b"]
    assert renamed.tensor("b").data_ptr() == checkpoint.tensor("model.b").data_ptr()


def test_renamed_leaves_keys_out_and_reads_nothing(make_header):
    renamed = make_header({"a": (2,), "b": (3,)}).renamed(lambda key: None if key == "a" else key)
    assert list(renamed) == ["b"]


def test_renaming_two_keys_to_one_is_an_error_that_names_both(make_header):
    with pytest.raises(ModelFileError, match=r"model\.a and a both hold a"):
        make_header({"model.a": (2,), "a": (2,)}).renamed(lambda key: key.removeprefix("model."))


def test_the_fingerprint_stays_until_the_file_is_written(make_file, make_tensors):
    first = make_file(make_tensors({"a": (2,)})).fingerprint()
    assert Checkpoint.open(first[0][0]).renamed(str).fingerprint() == first
    assert make_file(make_tensors({"a": (3,)})).fingerprint() != first
