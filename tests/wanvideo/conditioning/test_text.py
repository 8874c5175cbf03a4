"""From two text fields to TextEmbeds, and names for cached encodings."""

import os

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.text import cache_key, encode_text
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from safetensors.torch import save_file


class CountingEncoder:
    """Encodes a prompt as one row that holds its length."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def encode(self, prompts, *, device, check):
        check()
        self.calls.append(tuple(prompts))
        return [torch.full((1, 4), float(len(prompt))) for prompt in prompts]


def test_both_fields_are_encoded_in_one_batch():
    encoder = CountingEncoder()
    encode_text(encoder, "a | bc", "no", device="cpu")
    assert encoder.calls == [("a", "bc", "no")]


def test_several_prompts_become_several_embeddings():
    embeds = encode_text(CountingEncoder(), "a | bc", "none", device="cpu")
    assert [rows[0, 0].item() for rows in embeds.prompt_embeds] == [1, 2]
    assert [rows[0, 0].item() for rows in embeds.negative_prompt_embeds] == [4]
    assert not embeds.is_echoshot


def test_shots_are_marked():
    assert encode_text(CountingEncoder(), "[1] a [2] b", device="cpu").is_echoshot


def test_the_negative_prompt_is_never_split():
    encoder = CountingEncoder()
    encode_text(encoder, "a", "b | c", device="cpu")
    assert encoder.calls == [("a", "b | c")]


def test_an_empty_negative_prompt_is_encoded_and_a_missing_one_is_not():
    assert len(encode_text(CountingEncoder(), "a", "", device="cpu").negative_prompt_embeds) == 1
    assert encode_text(CountingEncoder(), "a", device="cpu").negative_prompt_embeds == ()


def test_check_can_stop_the_encoding():
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        encode_text(CountingEncoder(), "a", device="cpu", check=stop)


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    save_file({"x": torch.zeros(1)}, tmp_path / "encoder.safetensors")
    return Checkpoint.open(tmp_path / "encoder.safetensors")


def test_the_same_text_and_file_have_the_same_key(checkpoint):
    again = Checkpoint.open(checkpoint.path)
    assert cache_key(checkpoint, "a", dtype=torch.bfloat16) == cache_key(again, "a", dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "changed",
    [
        {"text": "b"},
        {"text": "a "},
        {"dtype": torch.float32},
        {"storage_dtype": torch.float8_e4m3fn},
    ],
    ids=str,
)
def test_the_key_changes_with_each_input(changed, checkpoint):
    first = {"text": "a", "dtype": torch.bfloat16}
    assert cache_key(checkpoint, **{**first, **changed}) != cache_key(checkpoint, **first)


def test_the_key_changes_when_the_file_is_replaced(checkpoint):
    before = cache_key(checkpoint, "a", dtype=torch.bfloat16)
    os.utime(checkpoint.path, ns=(1, 1))
    assert cache_key(checkpoint, "a", dtype=torch.bfloat16) != before
