"""What a UMT5 text encoder file looks like: its key styles, its sizes, and what is not one.

Official names are those of Wan2.1 `wan/modules/t5.py`; the second style is that of transformers'
`UMT5EncoderModel`, which ComfyUI's files use; the third that of GGUF files. The engine speaks official names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ModelFileError
from ..weights.checkpoint import Checkpoint
from ..weights.keys import find_prefix, with_current_scale_name
from ..weights.kinds import UMT5, kind_of, wrong_kind
from .umt5_gguf import without_gguf_names

OFFICIAL_EMBEDDING = "token_embedding.weight"
HF_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")
# A table of relative positions in the second block as well: what UMT5 has and T5 has not.
_OFFICIAL_TABLE = "blocks.{}.pos_embedding.embedding.weight"
_HF_TABLE = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"

_HF_IN_A_BLOCK = {
    ("0", "layer_norm"): "norm1",
    ("0", "SelfAttention.q"): "attn.q",
    ("0", "SelfAttention.k"): "attn.k",
    ("0", "SelfAttention.v"): "attn.v",
    ("0", "SelfAttention.o"): "attn.o",
    ("0", "SelfAttention.relative_attention_bias"): "pos_embedding.embedding",
    ("1", "layer_norm"): "norm2",
    ("1", "DenseReluDense.wi_0"): "ffn.gate.0",
    ("1", "DenseReluDense.wi_1"): "ffn.fc1",
    ("1", "DenseReluDense.wo"): "ffn.fc2",
}
_UNUSED_LEAVES = ("spiece_model", "logit_scale")
_DECODER = ("decoder.", "lm_head.")


@dataclass(frozen=True)
class UMT5Config:
    """Sizes of a UMT5 encoder, read from the shapes in its file.

    Args:
        vocabulary: rows of the embedding table (umt5-xxl: 256384).
        width: of the hidden states (4096).
        attention_width: all heads together (4096).
        heads: attention heads (64).
        feed_forward_width: inner width of the gated feed-forward (10240).
        layers: blocks (24).
        buckets: rows of each relative position table (32).
    """

    vocabulary: int
    width: int
    attention_width: int
    heads: int
    feed_forward_width: int
    layers: int
    buckets: int


def embedding_key(checkpoint: Checkpoint) -> str | None:
    """The key of the token embedding table, prefix included, or None when there is none."""
    for landmark in (OFFICIAL_EMBEDDING, *HF_EMBEDDINGS):
        prefix = find_prefix(checkpoint.keys(), (landmark,))
        if prefix is not None:
            return prefix + landmark
    return None


def official_umt5(checkpoint: Checkpoint) -> Checkpoint:
    """The encoder's tensors under official names; decoder, markers and other networks are left out.

    Raises:
        ModelFileError: the file is not a UMT5 text encoder; says what it looks like.
    """
    given, checkpoint = checkpoint, without_gguf_names(checkpoint)
    embedding = embedding_key(checkpoint)
    if embedding is None:
        raise _not_umt5(given)
    prefix, is_official = _prefix_and_style(embedding)
    table = prefix + (_OFFICIAL_TABLE if is_official else _HF_TABLE)
    needed = [0, 1] if _has_second_block(checkpoint, prefix) else [0]
    if not all(table.format(number) in checkpoint for number in needed):
        raise _not_umt5(given)
    spare = tuple(_path(prefix + key) for key in HF_EMBEDDINGS if prefix + key != embedding)

    def rename(key: str) -> str | None:
        is_unused = key.startswith(spare) or key.rsplit(".", 1)[-1] in _UNUSED_LEAVES
        if is_unused or not key.startswith(prefix):
            return None
        name = with_current_scale_name(key[len(prefix) :])
        return name if is_official else _official_name(name)

    return checkpoint.renamed(rename)


def read_config(official: Checkpoint) -> UMT5Config:
    """The sizes of an encoder under official names.

    Raises:
        ModelFileError: sizes that do not fit together, or weights of the first block are missing.
    """
    vocabulary, width = _matrix(official, OFFICIAL_EMBEDDING)
    attention_width, _ = _matrix(official, "blocks.0.attn.q.weight")
    feed_forward_width, _ = _matrix(official, "blocks.0.ffn.fc1.weight")
    buckets, heads = _matrix(official, _OFFICIAL_TABLE.format(0))
    if not heads or attention_width % heads:
        raise ModelFileError(
            official.path, f"attention width {attention_width} for {heads} heads; damaged file"
        )
    return UMT5Config(
        vocabulary=vocabulary,
        width=width,
        attention_width=attention_width,
        heads=heads,
        feed_forward_width=feed_forward_width,
        layers=_layers(official.keys()),
        buckets=buckets,
    )


def _prefix_and_style(embedding: str) -> tuple[str, bool]:
    for landmark in (OFFICIAL_EMBEDDING, *HF_EMBEDDINGS):
        if embedding.endswith(landmark):
            return embedding[: -len(landmark)], landmark == OFFICIAL_EMBEDDING
    raise ValueError(f"{embedding} is no embedding table")


def _has_second_block(checkpoint: Checkpoint, prefix: str) -> bool:
    second = (f"{prefix}blocks.1.", f"{prefix}encoder.block.1.")
    return any(key.startswith(second) for key in checkpoint)


def _official_name(name: str) -> str | None:
    if name.startswith(_DECODER):
        return None
    path, _, leaf = name.rpartition(".")
    if f"{path}.weight" in HF_EMBEDDINGS:
        return f"{_path(OFFICIAL_EMBEDDING)}{leaf}"
    if name == "encoder.final_layer_norm.weight":
        return "norm.weight"
    parts = name.split(".")  # encoder.block.<number>.layer.<0 or 1>.<module>.<leaf>
    ours = _HF_IN_A_BLOCK.get((parts[4], ".".join(parts[5:-1]))) if len(parts) > 6 else None
    return f"blocks.{parts[2]}.{ours}.{parts[-1]}" if ours else name


def _path(key: str) -> str:
    """The key of a weight without its last part, with the dot."""
    return key.removesuffix("weight")


def _layers(keys: Iterable[str]) -> int:
    numbers = {key.split(".")[1] for key in keys if key.startswith("blocks.")}
    return 1 + max(int(number) for number in numbers if number.isdigit())


def _matrix(official: Checkpoint, key: str) -> tuple[int, int]:
    shape = official.shape(key)
    if len(shape) != 2:
        raise ModelFileError(official.path, f"{key} has shape {list(shape)}, expected a matrix; damaged file")
    return shape[0], shape[1]


def _not_umt5(checkpoint: Checkpoint) -> ModelFileError:
    if kind_of(checkpoint) is UMT5:
        return ModelFileError(
            checkpoint.path,
            "is a UMT5 text encoder without its token embedding or relative position tables: it is "
            "incomplete, download it again",
        )
    return wrong_kind(checkpoint, "a UMT5 text encoder")
