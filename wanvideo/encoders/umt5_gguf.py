"""UMT5 files in GGUF: llama.cpp's names of the weights, and the tokenizer in the metadata.

Names are those of the architecture "t5encoder" in llama.cpp; every block has its table of relative positions.
The tokenizer's metadata holds what a SentencePiece model holds, in other words, so the model is put together
again and read by the same library as any other.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ..errors import ModelFileError
from ..weights.checkpoint import Checkpoint
from ..weights.gguf_header import ArrayValue, read_gguf_arrays

EMBEDDING = "token_embd.weight"
_LANDMARKS = (EMBEDDING, "enc.blk.0.attn_q.weight")
_TOP_LEVEL = {EMBEDDING: "token_embedding.weight", "enc.output_norm.weight": "norm.weight"}
_IN_A_BLOCK = {
    "attn_norm": "norm1",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_o": "attn.o",
    "attn_rel_b": "pos_embedding.embedding",
    "ffn_norm": "norm2",
    "ffn_gate": "ffn.gate.0",
    "ffn_up": "ffn.fc1",
    "ffn_down": "ffn.fc2",
}

_TOKENIZER = "tokenizer.ggml."
_LISTS = ("tokens", "scores", "token_type")
_CHARACTERS = "precompiled_charsmap"
_UNKNOWN, _UNUSED, _BYTE = 2, 5, 6  # kinds of pieces, numbered as in SentencePiece
_SCORE = struct.Struct("<f")
_ONE_BYTE = tuple(bytes([value]) for value in range(128))


def without_gguf_names(checkpoint: Checkpoint) -> Checkpoint:
    """The encoder of a GGUF file under official names; any other file as it is."""
    return checkpoint.renamed(_official) if all(key in checkpoint for key in _LANDMARKS) else checkpoint


def _official(key: str) -> str | None:
    if key in _TOP_LEVEL:
        return _TOP_LEVEL[key]
    if not key.startswith("enc."):  # a decoder
        return None
    parts = key.split(".")  # enc.blk.<number>.<module>.weight
    name = _IN_A_BLOCK.get(parts[3]) if len(parts) == 5 and parts[1] == "blk" else None
    return f"blocks.{parts[2]}.{name}.{parts[4]}" if name else key


def tokenizer_model(checkpoint: Checkpoint) -> bytes | None:
    """The SentencePiece model in the metadata of a GGUF file, None when there is none.

    Raises:
        ModelFileError: the lists it is made of do not fit together.
    """
    if checkpoint.metadata.get(f"{_TOKENIZER}model") != "t5":
        return None
    wanted = [f"{_TOKENIZER}{name}" for name in (*_LISTS, _CHARACTERS)]
    arrays = read_gguf_arrays(checkpoint.files[0], wanted)
    tokens, scores, kinds = (arrays.get(name, ()) for name in wanted[:3])
    if not tokens:
        return None
    if not len(tokens) == len(scores) == len(kinds):
        raise ModelFileError(
            checkpoint.path,
            f"its tokenizer has {len(tokens)} pieces, {len(scores)} scores and {len(kinds)} kinds; "
            "download the file again",
        )
    count = len(tokens)
    while count and kinds[count - 1] == _UNUSED:  # padding up to the rows of the embedding table
        count -= 1
    pieces = [
        (token if isinstance(token, bytes) else b"", float(score), int(kind))
        for token, score, kind in zip(tokens[:count], scores, kinds, strict=False)
    ]
    return _model(pieces, checkpoint.metadata, _bytes(arrays.get(wanted[3], ())))


def _bytes(values: ArrayValue) -> bytes:
    return bytes(int(value) & 255 for value in values)  # written as signed or unsigned numbers


def _model(pieces: list[tuple[bytes, float, int]], metadata: Mapping[str, str], characters: bytes) -> bytes:
    """The protobuf message `sentencepiece.ModelProto`: 1 pieces, 2 training, 3 normalisation."""
    kinds = [kind for _, _, kind in pieces]
    unknown = _number(metadata, "unknown_token_id", kinds.index(_UNKNOWN) if _UNKNOWN in kinds else 0)
    special = {
        "unk": unknown,
        "bos": _number(metadata, "bos_token_id", -1),
        "eos": _number(metadata, "eos_token_id", 1),
        "pad": _number(metadata, "padding_token_id", -1),
    }
    training = [_varint_field(3, 1), _varint_field(4, len(pieces)), _varint_field(35, _BYTE in kinds)]
    for offset, index in enumerate(special.values()):
        training.append(_varint_field(40 + offset, index))
        if 0 <= index < len(pieces):
            training.append(_bytes_field(45 + offset, pieces[index][0]))
    normalisation = [
        _bytes_field(2, characters),
        _varint_field(3, metadata.get(f"{_TOKENIZER}add_space_prefix") != "False"),
        _varint_field(4, metadata.get(f"{_TOKENIZER}remove_extra_whitespaces") != "False"),
    ]
    return b"".join(
        [
            *(_bytes_field(1, _piece(*piece)) for piece in pieces),
            _bytes_field(2, b"".join(training)),
            _bytes_field(3, b"".join(normalisation)),
        ]
    )


def _piece(text: bytes, score: float, kind: int) -> bytes:
    """`SentencePiece`: 1 text, 2 score, 3 kind. There are 256384 of them."""
    return b"".join((b"\x0a", _varint(len(text)), text, b"\x15", _SCORE.pack(score), b"\x18", _varint(kind)))


def _number(metadata: Mapping[str, str], name: str, default: int) -> int:
    return int(metadata.get(f"{_TOKENIZER}{name}", default))


def _bytes_field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    """A number in protobuf's form: seven bits a byte, negative ones as 64 bits."""
    if 0 <= value < 128:
        return _ONE_BYTE[value]
    value &= (1 << 64) - 1
    parts: list[int] = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
