"""GGUF files as checkpoints, against the reader of the Python package `gguf`."""

import struct
import sys

import gguf
import numpy as np
import pytest
import torch
from comfyui_wanvideo.tools.tiny import gguf as tiny
from comfyui_wanvideo.tools.tiny.specs import DiTSize
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.gguf_header import read_gguf_arrays, read_gguf_header
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = DiTSize(layers=1, feed_forward=256)
QUERY = "blocks.0.self_attn.q.weight"
PATCHES = "patch_embedding.weight"
Kind = gguf.GGMLQuantizationType


def write_file(path, tensors, *, notes=None, architecture="wan", **options):
    """Tensors (an array, or an array and the ggml type it is packed in) by name."""
    writer = gguf.GGUFWriter(path, architecture, **options)
    for name, value in (notes or {}).items():
        tiny.add_note(writer, name, value)
    for name, tensor in tensors.items():
        array, kind = tensor if isinstance(tensor, tuple) else (tensor, None)
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def packed(array, kind):
    return tiny.pack(array, kind), Kind[kind]


@pytest.fixture(scope="module")
def mixed_path(tmp_path_factory):
    """A transformer in the mixture Q4_K_M."""
    path = tmp_path_factory.mktemp("gguf") / "mixed.gguf"
    tiny.write_dit(path, 0, type_of=tiny.q4_k_m, size=SIZE)
    return path


@pytest.fixture
def mixed(mixed_path):
    return Checkpoint.open(mixed_path)


@pytest.fixture(scope="module")
def in_the_package(mixed_path):
    """The same file as the package reads it."""
    return {tensor.name: tensor for tensor in gguf.GGUFReader(mixed_path).tensors}


def refusal(path):
    with pytest.raises(ModelFileError) as error:
        Checkpoint.open(path)
    return str(error.value)


# a good file


def test_names_are_those_of_the_file(mixed, in_the_package):
    assert set(mixed) == set(in_the_package)


def test_logical_shapes_are_those_of_the_network(mixed, in_the_package):
    shapes = {name: tuple(reversed(tensor.shape.tolist())) for name, tensor in in_the_package.items()}
    assert {key: mixed.shape(key) for key in mixed} == shapes


def test_stored_shapes_are_those_of_the_bytes(mixed, in_the_package):
    shapes = {name: tensor.data.shape for name, tensor in in_the_package.items()}
    assert {key: mixed.stored_shape(key) for key in mixed} == shapes


def test_encodings_name_the_packed_types(mixed, in_the_package):
    kinds = {name: tensor.tensor_type.name for name, tensor in in_the_package.items()}
    plain = {"F32", "F16"}
    assert {key: mixed.encoding(key) for key in mixed} == {
        name: "" if kind in plain else kind for name, kind in kinds.items()
    }


def test_a_mixture_has_several_encodings(mixed):
    assert {mixed.encoding(key) for key in mixed} == {"", "Q4_K", "Q5_K", "Q6_K"}


def test_bytes_equal_the_package_s(mixed, in_the_package):
    for name, tensor in in_the_package.items():
        assert np.array_equal(mixed.tensor(name).numpy(), tensor.data), name


def test_dense_values_equal_the_package_s(mixed, in_the_package):
    for name, tensor in in_the_package.items():
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(mixed.dense(name, torch.float32).numpy(), expected), name


def test_dense_values_have_the_wanted_dtype(mixed):
    assert mixed.dense(QUERY, torch.bfloat16).dtype == torch.bfloat16
    assert mixed.dense("head.head.weight", torch.bfloat16).dtype == torch.bfloat16


def test_tensors_are_views_on_one_mapping(mixed):
    assert len({mixed.tensor(key).untyped_storage().data_ptr() for key in mixed}) == 1


def test_byte_count_is_that_of_the_stored_bytes(mixed, in_the_package):
    assert mixed.byte_count() == sum(tensor.n_bytes for tensor in in_the_package.values())


def test_released_tensors_can_be_read_again(mixed):
    before = mixed.tensor(QUERY).clone()
    mixed.release(QUERY)
    assert torch.equal(mixed.tensor(QUERY), before)


def test_the_fingerprint_is_that_of_the_file(mixed, mixed_path):
    assert mixed.fingerprint()[0][:2] == (str(mixed_path.resolve()), mixed_path.stat().st_size)


def test_single_values_are_metadata(tmp_path):
    notes = {"general.name": "Wan", "general.file_type": 7, "x.flag": True}
    metadata = Checkpoint.open(write_file(tmp_path / "a.gguf", {"a": numbers(2)}, notes=notes)).metadata
    assert metadata["general.architecture"] == "wan"
    assert [metadata[name] for name in notes] == ["Wan", "7", "True"]


def test_arrays_are_read_on_demand(tmp_path):
    notes = {"x.words": ["one", "two"], "x.numbers": [1.5, -2.0], "x.bytes": b"\x00\xff"}
    path = write_file(tmp_path / "a.gguf", {"a": numbers(2)}, notes=notes)
    found = read_gguf_arrays(path, [*notes, "x.missing"])
    assert found == {"x.words": (b"one", b"two"), "x.numbers": (1.5, -2.0), "x.bytes": (0, 255)}


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "model"])
def test_the_content_decides_not_the_name(tmp_path, name):
    assert list(Checkpoint.open(write_file(tmp_path / name, {"a": numbers(2)}))) == ["a"]


@pytest.mark.parametrize(
    ("kind", "dtype"), [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)]
)
def test_plain_numbers_have_their_own_dtype(tmp_path, kind, dtype):
    values = torch.from_numpy(numbers(6, 8)).to(dtype)
    content = values.view(torch.uint8).numpy(), Kind[kind]
    checkpoint = Checkpoint.open(write_file(tmp_path / "a.gguf", {"a": content}))
    assert checkpoint.dtype("a") == dtype
    assert torch.equal(checkpoint.tensor("a"), values)


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_in_use_are_read(tmp_path, version):
    path = write_file(tmp_path / "a.gguf", {"a": numbers(2)})
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", version)
    path.write_bytes(content)
    assert len(Checkpoint.open(path)) == 1


def test_an_unusual_alignment_is_kept_to(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "wan")
    writer.add_custom_alignment(256)
    arrays = {"a": numbers(3), "b": numbers(5, seed=1)}
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    checkpoint = Checkpoint.open(path)
    assert all(np.array_equal(checkpoint.tensor(name).numpy(), array) for name, array in arrays.items())


def test_parts_of_a_model_open_as_one(tmp_path):
    arrays = {f"blocks.{number}.weight": numbers(4, 4, seed=number) for number in range(5)}
    write_file(tmp_path / "model.gguf", arrays, split_max_tensors=2)
    checkpoint = Checkpoint.open(tmp_path / "model-00002-of-00003.gguf")
    assert set(checkpoint) == set(arrays)
    assert all(np.array_equal(checkpoint.tensor(name).numpy(), array) for name, array in arrays.items())


def test_half_of_the_parts_is_refused(tmp_path):
    arrays = {f"blocks.{number}.weight": numbers(4, 4) for number in range(4)}
    write_file(tmp_path / "model.gguf", arrays, split_max_tensors=2)
    (tmp_path / "model-00002-of-00002.gguf").unlink()
    assert "model-00002-of-00002.gguf" in refusal(tmp_path / "model-00001-of-00002.gguf")


# shapes that converters change


@pytest.mark.parametrize("name", [PATCHES, "vace_patch_embedding.weight"])
@pytest.mark.parametrize(
    "written", [(8, 4, 1, 2, 2), (8, 16), (8, 4, 2, 2), (32, 1, 2, 2)], ids=["5-D", "2-D", "4-D", "flat"]
)
def test_a_patch_embedding_gets_its_five_dimensions_back(tmp_path, name, written):
    values = numbers(8, 4, 1, 2, 2)
    tensors = {name: values.reshape(written), name.replace("weight", "bias"): numbers(8)}
    checkpoint = Checkpoint.open(write_file(tmp_path / "a.gguf", tensors))
    assert checkpoint.shape(name) == (8, 4, 1, 2, 2)
    assert np.array_equal(checkpoint.tensor(name).numpy(), values)


def test_the_note_of_the_original_shape_decides(tmp_path):
    notes = {f"comfy.gguf.orig_shape.{PATCHES}": [4, 8, 1, 2, 2]}
    tensors = {PATCHES: numbers(8, 16), "patch_embedding.bias": numbers(8)}
    checkpoint = Checkpoint.open(write_file(tmp_path / "a.gguf", tensors, notes=notes))
    assert checkpoint.shape(PATCHES) == (4, 8, 1, 2, 2)


def test_a_packed_patch_embedding_unpacks_to_five_dimensions(tmp_path):
    content, kind = packed(numbers(8, 64), "Q8_0")
    tensors = {PATCHES: (content, kind), "patch_embedding.bias": numbers(8)}
    checkpoint = Checkpoint.open(write_file(tmp_path / "a.gguf", tensors))
    expected = gguf.quants.dequantize(content, kind).reshape(8, 16, 1, 2, 2)
    assert np.array_equal(checkpoint.dense(PATCHES, torch.float32).numpy(), expected)


def test_a_patch_embedding_that_cannot_be_one_keeps_its_shape(tmp_path):
    tensors = {PATCHES: numbers(8, 5), "patch_embedding.bias": numbers(8)}
    assert Checkpoint.open(write_file(tmp_path / "a.gguf", tensors)).shape(PATCHES) == (8, 5)


@pytest.mark.parametrize("name", ["blocks.0.modulation", "head.modulation", "img_emb.emb_pos"])
def test_a_dropped_leading_dimension_comes_back(tmp_path, name):
    assert Checkpoint.open(write_file(tmp_path / "a.gguf", {name: numbers(6, 8)})).shape(name) == (1, 6, 8)


def test_a_matrix_whose_rows_were_cut_anew_is_packed_by_its_own_rows(tmp_path):
    content, kind = packed(numbers(1, 256), "Q8_0")
    notes = {"comfy.gguf.orig_shape.a.weight": [4, 64]}
    checkpoint = Checkpoint.open(write_file(tmp_path / "a.gguf", {"a.weight": (content, kind)}, notes=notes))
    assert checkpoint.stored_shape("a.weight") == (4, 2 * 34)
    expected = gguf.quants.dequantize(content, kind).reshape(4, 64)
    assert np.array_equal(checkpoint.dense("a.weight", torch.float32).numpy(), expected)


def test_a_matrix_whose_rows_are_no_whole_blocks_is_unpacked_while_loading(tmp_path):
    content, kind = packed(numbers(1, 256), "Q4_K")
    notes = {"comfy.gguf.orig_shape.a.weight": [8, 32]}
    checkpoint = Checkpoint.open(write_file(tmp_path / "a.gguf", {"a.weight": (content, kind)}, notes=notes))
    assert (checkpoint.encoding("a.weight"), checkpoint.dtype("a.weight")) == ("", torch.float32)
    expected = gguf.quants.dequantize(content, kind).reshape(8, 32)
    assert np.array_equal(checkpoint.tensor("a.weight").numpy(), expected)


def test_rare_types_are_unpacked_while_loading_and_reported_once(tmp_path, caplog):
    content = np.random.default_rng(0).integers(0, 256, (4, 74), dtype=np.uint8)
    content[:, :2] = np.float16(0.5).tobytes()[0], np.float16(0.5).tobytes()[1]
    tensors = {name: (content, Kind.IQ2_XS) for name in ("a.weight", "b.weight")}
    checkpoint = Checkpoint.open(write_file(tmp_path / "a.gguf", tensors))
    expected = gguf.quants.dequantize(content, Kind.IQ2_XS)
    assert np.array_equal(checkpoint.tensor("b.weight").numpy(), expected)
    assert [record.getMessage() for record in caplog.records] == [
        "a.gguf: 2 weights are stored as IQ2_XS; they are unpacked while loading and take the memory of an "
        "unquantised model"
    ]


# bad files


def test_an_unknown_type_is_named_with_its_tensor(tmp_path):
    tiny.unknown_type(tmp_path / "a.gguf", 0)
    message = refusal(tmp_path / "a.gguf")
    assert f"{QUERY} is stored as ggml type number 99" in message
    assert "Q4_K" in message


def test_a_type_that_nobody_unpacks_is_named(tmp_path):
    content = np.zeros((1, 292), dtype=np.uint8), Kind.Q8_K
    assert "a is stored as Q8_K" in refusal(write_file(tmp_path / "a.gguf", {"a": content}))


def test_a_file_cut_off_in_its_data_names_the_missing_bytes_and_the_weight(tmp_path):
    path = write_file(tmp_path / "a.gguf", {"a": numbers(8), "b": numbers(64)})
    content = path.read_bytes()
    path.write_bytes(content[:-128])
    message = refusal(path)
    assert f"128 of {len(content)} bytes" in message
    assert "is b" in message


def test_a_file_cut_off_in_its_header_is_named_as_such(mixed_path, tmp_path):
    (tmp_path / "a.gguf").write_bytes(mixed_path.read_bytes()[:900])
    assert "cut off inside its GGUF header" in refusal(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("version", "said"),
    [(b"\1\0\0\0", "version 1"), (b"\4\0\0\0", "version 4"), (b"\0\0\0\3", "big-endian machines")],
)
def test_other_versions_are_refused_by_number(tmp_path, version, said):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + version + bytes(64))
    assert said in refusal(tmp_path / "a.gguf")


def test_a_note_of_an_impossible_shape_is_refused(tmp_path):
    notes = {"comfy.gguf.orig_shape.a": [3, 5]}
    assert "cannot be [3, 5]" in refusal(write_file(tmp_path / "a.gguf", {"a": numbers(4, 4)}, notes=notes))


def test_two_weights_of_one_name_are_refused(tmp_path):
    path = write_file(tmp_path / "a.gguf", {"first": numbers(4), "other": numbers(4)})
    path.write_bytes(path.read_bytes().replace(b"other", b"first"))
    assert "first is there twice" in refusal(path)


def test_without_the_package_the_message_says_how_to_install_it(mixed_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf.constants", None)
    message = refusal(mixed_path)
    assert "pip install gguf" in message
    assert "ComfyUI's Python" in message


def test_a_tiny_bad_file_cut_in_half_is_refused(tmp_path):
    tiny.truncated(tmp_path / "a.gguf", 0)
    assert "is cut off" in refusal(tmp_path / "a.gguf")


@pytest.fixture(scope="module")
def small_path(tmp_path_factory):
    """Every part a header can have, in few bytes."""
    notes = {
        f"comfy.gguf.orig_shape.{PATCHES}": [4, 4, 1, 2, 2],
        "x.words": ["one", "two"],
        "x.flag": True,
        "general.alignment": 32,
    }
    tensors = {
        PATCHES: numbers(4, 16),
        "blocks.0.modulation": numbers(6, 4),
        "a.weight": packed(numbers(2, 64), "Q8_0"),
        "b.weight": packed(numbers(1, 256), "Q4_K"),
    }
    return write_file(tmp_path_factory.mktemp("small") / "small.gguf", tensors, notes=notes)


def read_everything(path):
    """Open and unpack everything; the sentence that refuses the file, or nothing."""
    try:
        checkpoint = Checkpoint.open(path)
    except ModelFileError as error:
        return str(error)
    for key in checkpoint:
        assert checkpoint.tensor(key).shape == checkpoint.stored_shape(key)
        assert checkpoint.dense(key, torch.float32).shape == checkpoint.shape(key)
    return ""


@settings(max_examples=150)
@given(place=st.integers(4, 10**6), value=st.binary(min_size=1, max_size=8))
def test_a_damaged_header_is_refused_or_read_never_a_crash(small_path, place, value):
    content = bytearray(small_path.read_bytes())
    place %= read_gguf_header(small_path).data_start
    content[place : place + len(value)] = value
    damaged = small_path.with_name("damaged.gguf")
    damaged.write_bytes(content)
    problem = read_everything(damaged)
    assert not problem or problem.startswith("damaged.gguf: ")


@settings(max_examples=60)
@given(length=st.integers(4, 10**6))
def test_a_file_cut_off_anywhere_is_refused(small_path, length):
    content = small_path.read_bytes()
    short = small_path.with_name("short.gguf")
    short.write_bytes(content[: length % (len(content) - 32)])
    assert read_everything(short).startswith("short.gguf: ")
