"""UMT5 in GGUF files: names, packed weights, tokenizer."""

import gguf
import numpy as np
import pytest
import torch
from comfyui_wanvideo.tools.tiny import gguf as tiny
from comfyui_wanvideo.tools.tiny.specs import UMT5Size, umt5, umt5_hf_name
from comfyui_wanvideo.wanvideo.encoders import umt5_gguf
from comfyui_wanvideo.wanvideo.encoders.text_encoder import load_umt5
from comfyui_wanvideo.wanvideo.encoders.tokenizer import Tokenizer, find_tokenizer, load_tokenizer
from comfyui_wanvideo.wanvideo.encoders.umt5 import TokenEmbedding
from comfyui_wanvideo.wanvideo.encoders.umt5_keys import official_umt5
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.formats import DENSE
from comfyui_wanvideo.wanvideo.weights.formats.gguf import GgufFormat, gguf_format
from comfyui_wanvideo.wanvideo.weights.formats.scaled import ScaledFormat
from comfyui_wanvideo.wanvideo.weights.gguf_header import read_gguf_header
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

# Rows of 256 values, as blocks with a K have.
SIZE = UMT5Size(vocabulary=704, width=256, attention_width=256, heads=4, feed_forward=256, layers=2)
PROMPTS = ["a red fox jumps over the snow, slow motion", "text, watermark", ""]
HARD_TEXTS = [
    "",
    " ",
    "  two   spaces\n\tand a tab ",
    "\u00e9t\u00e9, cafe\u0301 \ufb01ne \u2460 \uff21",
    "\u4e2d\u6587\u63d0\u793a \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4",
    "\U0001f98a \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "<pad> </s> <unk> [PAD700] \u2581a",
    "MiXeD CaSe 4K!?#$%&'()*+,-./:;=@[]^_`{|}~",
    "word " * 700,
]


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Write a GGUF text encoder; the path."""
    folder = tmp_path_factory.mktemp("umt5")

    def make(kind="Q8_0", name="encoder.gguf", **options):
        type_of = tiny.q4_k_m if kind == "Q4_K_M" else tiny.plain(kind)
        tiny.write_umt5(folder / name, 1, type_of=type_of, size=SIZE, **options)
        return folder / name

    return make


@pytest.fixture(scope="module")
def path(write):
    return write()


@pytest.fixture
def official(path):
    return official_umt5(Checkpoint.open(path))


def unpacked_twin(path, spiece_model):
    """The same weights in float32 in a safetensors file under official names, tokenizer included."""
    official = official_umt5(Checkpoint.open(path))
    tensors = {key: official.dense(key, torch.float32).contiguous() for key in official}
    tensors["spiece_model"] = torch.frombuffer(bytearray(spiece_model), dtype=torch.uint8)
    save_file(tensors, path.with_suffix(".safetensors"))
    return Checkpoint.open(path.with_suffix(".safetensors"))


def encoded(checkpoint, dtype=torch.float32):
    return torch.cat(load_umt5(checkpoint, dtype=dtype).encode(PROMPTS, device="cpu")).float()


def without_tensor(path, *names, rename=None):
    """The checkpoint without some of its tensors."""
    return Checkpoint.open(path).renamed(lambda key: None if key in names else (rename or str)(key))


def listed(notes, name):
    """A list of the tokenizer's metadata."""
    values = notes[f"tokenizer.ggml.{name}"]
    assert isinstance(values, list)
    return values


# names


def test_names_agree_with_the_package_s_table(path):
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, SIZE.layers)
    expected = {table.get_name(umt5_hf_name(key), (".weight",)): key for key in umt5(SIZE)}
    checkpoint = Checkpoint.open(path)
    renamed = umt5_gguf.without_gguf_names(checkpoint)
    assert dict(zip(checkpoint, renamed, strict=True)) == expected


def test_shapes_are_those_of_the_official_file(official):
    assert {key: official.shape(key) for key in official} == umt5(SIZE)


def test_the_decoder_of_a_whole_t5_model_is_left_out(path):
    renamed = Checkpoint.open(path).renamed(
        lambda key: key.replace("enc.blk.1", "dec.blk.0") if key == "enc.blk.1.attn_q.weight" else key
    )
    assert not any("dec" in key for key in umt5_gguf.without_gguf_names(renamed))


def test_other_files_keep_their_names(write, spiece_model):
    twin = unpacked_twin(write(name="names.gguf"), spiece_model)
    assert umt5_gguf.without_gguf_names(twin) is twin


# the network


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_K", "IQ4_NL", "Q8_0", "BF16", "Q4_K_M"])
def test_prompts_encode_as_with_the_unpacked_weights(write, spiece_model, relative_error, kind):
    path = write(kind, f"{kind}.gguf")
    expected = encoded(unpacked_twin(path, spiece_model))
    assert relative_error(encoded(Checkpoint.open(path)), expected) < 1e-5


def test_prompts_encode_in_bfloat16_near_the_unpacked_weights(path, spiece_model, relative_error):
    expected = encoded(unpacked_twin(path, spiece_model))
    assert relative_error(encoded(Checkpoint.open(path), torch.bfloat16), expected) < 2e-2


def test_matrices_and_the_embedding_table_stay_packed(path):
    module = load_umt5(Checkpoint.open(path), dtype=torch.bfloat16).module
    assert module.token_embedding.format is gguf_format("Q8_0")
    assert module.get_parameter("blocks.1.ffn.fc2.weight").dtype == torch.uint8


# the embedding table


def stored_table(kind):
    values = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
    if kind == "dense":
        return DENSE, {"weight": values.half()}
    if kind == "scaled":
        scale = torch.rand(32, generator=torch.Generator().manual_seed(1)) + 0.5
        return ScaledFormat(), {"weight": values.to(torch.float8_e4m3fn), "weight_scale": scale}
    return gguf_format(kind), {"weight": torch.from_numpy(tiny.pack(values.numpy(), kind))}


@pytest.mark.parametrize("kind", ["dense", "scaled", "Q4_K", "Q8_0"])
@pytest.mark.parametrize("ids", [[3], [0, 31, 3, 3], list(range(32))])
def test_rows_of_the_table_are_those_of_the_whole_matrix(kind, ids):
    table = TokenEmbedding(32, 256)
    table.store_as(*stored_table(kind))
    expected = table.materialize(torch.float32)[torch.tensor(ids)]
    assert torch.equal(table.rows(torch.tensor(ids)), expected)


def test_only_rows_in_use_are_unpacked(monkeypatch):
    table = TokenEmbedding(32, 256)
    table.store_as(*stored_table("Q8_0"))
    seen = []
    unpack = GgufFormat.decode
    monkeypatch.setattr(
        GgufFormat,
        "decode",
        lambda self, packed, dtype: seen.append(len(packed)) or unpack(self, packed, dtype),
    )
    table.rows(torch.tensor([5, 6]))
    assert seen == [2]


# the tokenizer


@pytest.fixture(scope="module")
def rebuilt(path):
    found = load_tokenizer(Checkpoint.open(path))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def original(spiece_model, path):
    return Tokenizer(spiece_model, path)


def test_the_tokenizer_has_the_pieces_of_the_original_without_padding(rebuilt, original):
    assert rebuilt.pieces == original.pieces < SIZE.vocabulary


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_hard_texts_have_the_same_tokens_and_places(rebuilt, original, text):
    assert rebuilt.encode(text) == original.encode(text)


@settings(max_examples=300)
@given(text=st.text(max_size=80))
def test_any_text_has_the_same_tokens(rebuilt, original, text):
    assert rebuilt.encode(text) == original.encode(text)


KNOWN_WORDS = ["a", "red", "fox", "jumps", "over", "the", "snow,", "4k", "slow", "motion\u3000"]


@settings(max_examples=100)
@given(words=st.lists(st.sampled_from(KNOWN_WORDS), max_size=30))
def test_prompts_of_known_words_have_the_same_tokens(rebuilt, original, words):
    text = " ".join(words)
    assert rebuilt.encode(text) == original.encode(text)


def test_pieces_for_bytes_take_part(tmp_path, spiece_model):
    """UMT5's model falls back to bytes for characters it does not know."""
    notes = tiny.tokenizer_notes(spiece_model, 0)
    bytes_of_their_own = {
        "tokens": [f"<0x{value:02X}>".encode() for value in range(256)],
        "scores": [0.0] * 256,
        "token_type": [6] * 256,
    }
    for name, values in bytes_of_their_own.items():
        notes[f"tokenizer.ggml.{name}"] = [*listed(notes, name), *values]
    path = tmp_path / "bytes.gguf"
    tiny.write_tensors(path, "t5encoder", {"a": torch.zeros(1)}, {"a": "F32"}, notes)
    tokenizer = load_tokenizer(Checkpoint.open(path))
    assert tokenizer is not None
    first = tokenizer.pieces - 256
    assert tokenizer.encode("\u4e2d").ids[-4:-1] == (first + 0xE4, first + 0xB8, first + 0xAD)


def test_a_file_without_tokenizer_borrows_that_of_a_gguf_file(write, path, original):
    bare = Checkpoint.open(write(name="bare.gguf", with_tokenizer=False))
    assert find_tokenizer(bare, [path]).encode(PROMPTS[0]) == original.encode(PROMPTS[0])


def test_a_safetensors_file_borrows_that_of_a_gguf_file(save_umt5, path, original):
    weights = {key: torch.zeros(shape) for key, shape in umt5(SIZE).items()}
    bare = save_umt5(weights, with_tokenizer=False)
    assert find_tokenizer(bare, [path]).encode(PROMPTS[0]) == original.encode(PROMPTS[0])


def test_the_tokenizer_of_a_language_model_is_not_taken(tmp_path):
    tiny.language_model(tmp_path / "llama.gguf", 0)
    assert load_tokenizer(Checkpoint.open(tmp_path / "llama.gguf")) is None


def test_lists_of_different_lengths_are_refused(tmp_path, spiece_model):
    notes = tiny.tokenizer_notes(spiece_model, 0)
    notes["tokenizer.ggml.scores"] = listed(notes, "scores")[:-1]
    tiny.write_tensors(tmp_path / "a.gguf", "t5encoder", {"a": torch.zeros(1)}, {"a": "F32"}, notes)
    with pytest.raises(ModelFileError, match=r"a\.gguf: its tokenizer has \d+ pieces, \d+ scores"):
        load_tokenizer(Checkpoint.open(tmp_path / "a.gguf"))


# other files


def test_a_plain_t5_encoder_is_refused_by_its_kind(path):
    plain = without_tensor(path, "enc.blk.1.attn_rel_b.weight")
    with pytest.raises(ModelFileError, match=r"T5 text encoder of another model \(not UMT5\)"):
        official_umt5(plain)


def test_a_language_model_is_refused_by_its_kind(tmp_path):
    tiny.language_model(tmp_path / "llama.gguf", 0)
    with pytest.raises(ModelFileError, match=r"llama\.gguf: .*language model \(GGUF\)"):
        official_umt5(Checkpoint.open(tmp_path / "llama.gguf"))


def test_a_missing_matrix_is_named(path):
    with pytest.raises(ModelFileError, match=r"blocks\.1\.ffn\.fc1\.weight"):
        load_umt5(without_tensor(path, "enc.blk.1.ffn_up.weight"), dtype=torch.float32)


def test_damaged_numbers_in_plain_tensors_are_found(tmp_path):
    damaged = tmp_path / "nan.gguf"
    tiny.write_umt5(damaged, 1, type_of=tiny.plain("Q8_0"), size=SIZE)
    header = read_gguf_header(damaged)
    place = header.data_start + header.entries["enc.output_norm.weight"].offset
    content = bytearray(damaged.read_bytes())
    content[place : place + 4] = np.float32("nan").tobytes()
    damaged.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"norm\.weight"):
        load_umt5(Checkpoint.open(damaged), dtype=torch.float32)
