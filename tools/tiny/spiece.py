"""A small SentencePiece model in the form umt5 files carry it: pad 0, end 1, start 2, unknown 3."""

from __future__ import annotations

import io
import itertools
import string

import torch
from torch import Tensor

PIECES = 640

_SUBJECTS = (
    "a red fox",
    "an old sailor",
    "two children",
    "a white cat",
    "the astronaut",
    "a small robot",
    "a woman in a blue coat",
    "a flock of birds",
    "the steam train",
    "a dancer",
)
_ACTIONS = (
    "jumps over the snow",
    "walks slowly through the forest",
    "is looking at the camera",
    "runs along the beach",
    "turns around and smiles",
    "flies above the mountains",
    "stands in heavy rain",
    "plays the violin",
    "crosses a busy street at night",
)
_STYLES = (
    "cinematic light, shallow depth of field",
    "high quality, detailed, 4k",
    "low quality, blurry, static, worst quality",
    "watercolor painting",
    "slow motion, golden hour",
    "black and white film, grain",
    "wide shot, the camera pans to the left",
    "text, watermark, jpeg artifacts, extra fingers",
)


def train() -> bytes:
    """The serialized model; the same bytes each time."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(
            f"{subject} {action}, {style}."
            for subject, action, style in itertools.product(_SUBJECTS, _ACTIONS, _STYLES)
        ),
        model_writer=written,
        model_type="unigram",
        vocab_size=PIECES,
        hard_vocab_limit=False,
        required_chars=string.ascii_letters + string.digits + string.punctuation,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()


def character_map(model: bytes) -> bytes:
    """The compiled table that normalises characters before they are cut into pieces."""
    return _field(_field(model, 3), 2)  # ModelProto.normalizer_spec.precompiled_charsmap


def _field(message: bytes, wanted: int) -> bytes:
    """The last field of this number in a protobuf message, empty when there is none."""
    found, place = b"", 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(message, place)
            continue
        length, place = _varint(message, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
        if tag >> 3 == wanted:
            found = message[place : place + length]
        place += length
    return found


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while message[place] & 128:
        value |= (message[place] & 127) << shift
        shift, place = shift + 7, place + 1
    return value | message[place] << shift, place + 1


def as_tensor(model: bytes) -> Tensor:
    """The model as the uint8 tensor `spiece_model`."""
    return torch.frombuffer(bytearray(model), dtype=torch.uint8)
