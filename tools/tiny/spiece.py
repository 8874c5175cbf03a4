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


def as_tensor(model: bytes) -> Tensor:
    """The model as the uint8 tensor `spiece_model`."""
    return torch.frombuffer(bytearray(model), dtype=torch.uint8)
