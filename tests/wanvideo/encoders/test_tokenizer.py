"""The tokenizer against transformers' T5 tokenizer on the same SentencePiece model."""

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui_wanvideo.tools.tiny import spiece
from comfyui_wanvideo.wanvideo.encoders import tokenizer as subject
from comfyui_wanvideo.wanvideo.encoders.tokenizer import Tokenizer, find_tokenizer, load_tokenizer
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from safetensors.torch import save_file

TEXTS = (
    "a red fox jumps over the snow, cinematic light",
    "",
    "  two   spaces ",
    "line\nbreak\tand tab",
    "caf\u00e9 \u00fcber na\u00efve e\u0301",
    "\U0001f98a fox \U0001f98a\U0001f98a end",
    "\uff21\uff22 full width, ligature \ufb01ne",
    "\u4e00\u53ea\u7ea2\u8272\u7684\u72d0\u72f8\u5728\u96ea\u5730\u91cc",
    "zero\u200bwidth and\u00a0no-break",
    "a_b-c (d:1.2) [1] {x} 100% #tag @me <b>",
    "WORDS in CaPitals 1234567890",
)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Length-delimited fields of a protocol buffer, without the protobuf package."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if message[at - 1] < 128:
                return value, at

    at = 0
    while at < len(message):
        tag, at = varint(at)
        if tag & 7 == 2:
            length, at = varint(at)
            yield tag >> 3, message[at : at + length]
            at += length
        elif tag & 7 == 0:
            _, at = varint(at)
        else:
            at += 4 if tag & 7 == 5 else 8


@pytest.fixture(scope="module")
def reference(spiece_model: bytes) -> Callable[[str], list[int]]:
    """T5Tokenizer with UMT5's id of unknown pieces (3; its own default is T5's 2)."""
    from sentencepiece import SentencePieceProcessor
    from tokenizers.models import Unigram
    from transformers import T5Tokenizer

    processor = SentencePieceProcessor(model_proto=spiece_model)
    vocabulary = [
        (processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())
    ]
    normalizer = next(value for field, value in _fields(spiece_model) if field == 3)
    charsmap = next(value for field, value in _fields(normalizer) if field == 2)
    tokenizer = T5Tokenizer(vocab=vocabulary, _spm_precompiled_charsmap=charsmap, extra_ids=0)
    tokenizer.backend_tokenizer.model = Unigram(vocabulary, unk_id=3, byte_fallback=False)
    return lambda text: tokenizer(text, truncation=True, max_length=512)["input_ids"]


@pytest.fixture(scope="module")
def ours(spiece_model: bytes) -> Tokenizer:
    return Tokenizer(spiece_model, Path("encoder.safetensors"))


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_ids_match_transformers(text, ours, reference):
    assert list(ours.encode(text).ids) == reference(text)


def test_a_long_prompt_is_cut_like_transformers_does(ours, reference):
    text = "the snow " * 600
    assert list(ours.encode(text).ids) == reference(text)


def test_a_cut_prompt_keeps_512_tokens_with_the_end_token_and_says_what_it_lost(ours):
    tokens = ours.encode("x" * 700)
    whole = ours._processor.encode("x" * 700)
    assert len(tokens.ids) == 512
    assert tokens.ids[-1] == 1
    assert tokens.dropped == len(whole) - 511


def test_the_empty_prompt_is_one_end_token(ours):
    assert ours.encode("").ids == (1,)


def test_no_start_token_is_added(ours):
    assert 2 not in ours.encode("a red fox").ids


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_places_cover_the_text_from_left_to_right(text, ours):
    places = ours.encode(text).places[:-1]
    assert all(start <= stop for start, stop in places)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(places))
    uncovered = set(range(len(text))) - {i for start, stop in places for i in range(start, stop)}
    assert all(text[index].isspace() for index in uncovered)


def test_places_come_from_older_sentencepiece_versions_too(ours, spiece_model):
    class OldProcessor:
        def encode(self, text: str, out_type: str) -> SimpleNamespace:
            assert out_type == "immutable_proto"
            pieces = [SimpleNamespace(id=5, begin=0, end=2), SimpleNamespace(id=9, begin=2, end=4)]
            return SimpleNamespace(pieces=pieces)

    old: Any = OldProcessor()
    assert subject._pieces_with_places(old, "abcd") == [(5, 0, 2), (9, 2, 4)]


def test_the_file_s_own_tokenizer_is_used(save_umt5, umt5_weights):
    checkpoint = save_umt5(umt5_weights)
    assert find_tokenizer(checkpoint).path == checkpoint.path


def test_a_file_without_tokenizer_borrows_that_of_another_umt5_file(save_umt5, umt5_weights, ours):
    lender = save_umt5(umt5_weights, "lender.safetensors", style="hf")
    checkpoint = save_umt5(umt5_weights, with_tokenizer=False)
    found = find_tokenizer(checkpoint, [checkpoint.path, lender.path])
    assert found.path == lender.path
    assert found.encode("a red fox").ids == ours.encode("a red fox").ids


def test_a_tokenizer_for_another_vocabulary_is_not_borrowed(save_umt5, umt5_weights):
    other = {**umt5_weights, "token_embedding.weight": torch.randn(300, 64)}
    lender = save_umt5(other, "lender.safetensors")
    with pytest.raises(ModelFileError):
        find_tokenizer(save_umt5(umt5_weights, with_tokenizer=False), [lender.path])


def test_files_that_cannot_be_opened_do_not_disturb_the_search(save_umt5, umt5_weights, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"<html>")
    lender = save_umt5(umt5_weights, "lender.safetensors")
    checkpoint = save_umt5(umt5_weights, with_tokenizer=False)
    assert (
        find_tokenizer(checkpoint, [broken, tmp_path / "gone.safetensors", lender.path]).path == lender.path
    )


def test_pickles_are_not_opened_in_search_of_a_tokenizer(save_umt5, umt5_weights, tmp_path, spiece_model):
    lender = tmp_path / "lender.pth"
    torch.save({**umt5_weights, "spiece_model": spiece.as_tensor(spiece_model)}, lender)
    with pytest.raises(ModelFileError):
        find_tokenizer(save_umt5(umt5_weights, with_tokenizer=False), [lender])


def test_without_any_tokenizer_the_error_names_the_file_to_get(save_umt5, umt5_weights):
    with pytest.raises(ModelFileError, match=r"no tokenizer.*umt5_xxl_fp8_e4m3fn_scaled\.safetensors"):
        find_tokenizer(save_umt5(umt5_weights, with_tokenizer=False))


def test_a_file_without_spiece_model_has_no_tokenizer(save_umt5, umt5_weights):
    assert load_tokenizer(save_umt5(umt5_weights, with_tokenizer=False)) is None


def test_a_damaged_tokenizer_is_an_error_that_names_the_file(save_umt5, umt5_weights, spiece_model):
    broken = spiece.as_tensor(spiece_model[: len(spiece_model) // 3])
    checkpoint = save_umt5(umt5_weights, with_tokenizer=False, extra={"spiece_model": broken})
    with pytest.raises(ModelFileError, match=r"encoder\.safetensors.*spiece_model.*damaged"):
        load_tokenizer(checkpoint)


def test_the_tokenizer_of_another_kind_of_encoder_is_refused(tmp_path):
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a few words", "and some more words"]),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )  # default ids: unknown 0, start 1, end 2
    path = tmp_path / "other.safetensors"
    save_file({"spiece_model": spiece.as_tensor(written.getvalue())}, path)
    with pytest.raises(ModelFileError, match="not that of a UMT5"):
        load_tokenizer(Checkpoint.open(path))
