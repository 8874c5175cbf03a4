"""The UMT5 tokenizer, from the SentencePiece model that text encoder files carry.

safetensors files carry it as a tensor, GGUF files as lists in their metadata.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import ModelFileError
from ..weights.checkpoint import Checkpoint
from .umt5_gguf import tokenizer_model, without_gguf_names
from .umt5_keys import embedding_key

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

log = logging.getLogger(__name__)

SPIECE_KEY = "spiece_model"
MAX_TOKENS = 512  # what Wan was trained with, end token included
EOS_ID = 1
_HEADER_ONLY_SUFFIXES = (".safetensors", ".sft", ".gguf")


@dataclass(frozen=True)
class Tokens:
    """A tokenized prompt.

    Args:
        ids: piece ids, the end token last; at least that one, at most 512.
        places: characters (start, stop) of the prompt each id stands for; empty for the end token.
        dropped: pieces beyond the 512 that were cut off.
    """

    ids: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    dropped: int = 0


class Tokenizer:
    """SentencePiece model of UMT5: no start token, one end token, at most 512 tokens.

    Args:
        model: the serialized SentencePiece model.
        path: the file it came from, for messages.

    Raises:
        ModelFileError: the bytes are not a SentencePiece model, or one of another kind of encoder.
    """

    def __init__(self, model: bytes, path: Path) -> None:
        self.path = path
        self._processor = _read_model(model, path)

    @property
    def pieces(self) -> int:
        """Size of the vocabulary; the encoder's embedding table may have more rows, never fewer."""
        return self._processor.get_piece_size()

    def encode(self, text: str) -> Tokens:
        """Tokenize a cleaned prompt. The end token stays when the prompt is cut to 512 tokens."""
        found = _pieces_with_places(self._processor, text)
        kept = found[: MAX_TOKENS - 1]
        return Tokens(
            ids=(*(piece for piece, _, _ in kept), EOS_ID),
            places=(*((start, stop) for _, start, stop in kept), (len(text), len(text))),
            dropped=len(found) - len(kept),
        )


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer | None:
    """The tokenizer a text encoder file carries, or None.

    Raises:
        ModelFileError: it carries a damaged one, or that of another encoder.
    """
    key = _spiece_key(checkpoint)
    if key is None:
        model = tokenizer_model(checkpoint)
        return None if model is None else Tokenizer(model, checkpoint.path)
    stored = checkpoint.tensor(key)
    if stored.dtype not in (torch.uint8, torch.int8) or stored.ndim != 1:
        raise ModelFileError(
            checkpoint.path, f"{key} is not a SentencePiece model (bytes); download it again"
        )
    return Tokenizer(stored.numpy().tobytes(), checkpoint.path)


def find_tokenizer(checkpoint: Checkpoint, other_files: Iterable[Path] = ()) -> Tokenizer:
    """The tokenizer for a UMT5 file: its own, else the one of another UMT5 file.

    Args:
        checkpoint: the text encoder that will be used.
        other_files: text encoder files on disk. Only the headers of safetensors and GGUF files are read, and
            only a file with a vocabulary of the same size is used.

    Raises:
        ModelFileError: nobody has one; the message says which file to get.
    """
    own = load_tokenizer(checkpoint)
    if own is not None:
        return own
    for path in other_files:
        tokenizer = _borrowed(path, rows=_vocabulary(checkpoint))
        if tokenizer is not None:
            log.info("%s has no tokenizer, using the one of %s", checkpoint.path.name, path.name)
            return tokenizer
    raise ModelFileError(
        checkpoint.path,
        "this text encoder file has no tokenizer (no spiece_model inside) and no other UMT5 file on disk has "
        "one. Put umt5_xxl_fp8_e4m3fn_scaled.safetensors or umt5_xxl_fp16.safetensors (Hugging Face "
        "repository Comfy-Org/Wan_2.1_ComfyUI_repackaged, split_files/text_encoders) into "
        "models/text_encoders: select it, or keep this file and its tokenizer will be used",
    )


def _borrowed(path: Path, *, rows: int) -> Tokenizer | None:
    """The tokenizer of another file, when that is a UMT5 file with the same vocabulary."""
    if path.suffix.lower() not in _HEADER_ONLY_SUFFIXES:
        return None
    try:
        other = Checkpoint.open(path)
        return load_tokenizer(other) if _vocabulary(other) == rows else None
    except ModelFileError as error:
        log.debug("no tokenizer from %s", error)
        return None


def _vocabulary(checkpoint: Checkpoint) -> int:
    checkpoint = without_gguf_names(checkpoint)
    key = embedding_key(checkpoint)
    return checkpoint.shape(key)[0] if key is not None else -1


def _spiece_key(checkpoint: Checkpoint) -> str | None:
    return next((key for key in checkpoint if key.rsplit(".", 1)[-1] == SPIECE_KEY), None)


def _read_model(model: bytes, path: Path) -> SentencePieceProcessor:
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_proto=model)
    except (RuntimeError, ValueError) as error:
        raise ModelFileError(
            path, "its tokenizer (spiece_model) is damaged; download the file again"
        ) from error
    if processor.eos_id() != EOS_ID:
        raise ModelFileError(path, "its tokenizer (spiece_model) is not that of a UMT5 text encoder")
    return processor


def _pieces_with_places(processor: SentencePieceProcessor, text: str) -> list[tuple[int, int, int]]:
    """(id, start, stop) of every piece; newer versions of sentencepiece renamed this call."""
    if hasattr(processor, "EncodeAsOffsetMapping"):
        found = processor.encode(text, out_type="offset_mapping")
        return [
            (piece, start, stop) for piece, (start, stop) in zip(found["ids"], found["offsets"], strict=True)
        ]
    found = processor.encode(text, out_type="immutable_proto")  # pyright: ignore[reportArgumentType]
    return [(piece.id, piece.begin, piece.end) for piece in found.pieces]
