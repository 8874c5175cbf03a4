"""Tiny GGUF files: the tiny transformer and text encoder in ggml's block types.

Written as converters write them: matrices of the blocks packed, other matrices float16, everything else
float32; the text encoder with llama.cpp's names and its tokenizer in the metadata.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import fill, spiece
from .gguf_pack import pack
from .specs import DiTSize, UMT5Size, dit, umt5

_SHORT_BLOCKS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
_LONG_BLOCKS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")
PACKED_TYPES = (*_SHORT_BLOCKS, *_LONG_BLOCKS)
_Q8_0_NUMBER, _UNKNOWN_NUMBER = 8, 99

TypeOf = Callable[[str], str]  # ggml type of a weight by its official name


def plain(kind: str) -> TypeOf:
    """The same type for every matrix of the blocks."""
    return lambda _key: kind


def q4_k_m(key: str) -> str:
    """The mixture llama.cpp calls Q4_K_M: what matters most has more bits."""
    if key.endswith(("attn.v.weight", "ffn.2.weight", "ffn.fc2.weight")):
        return "Q6_K"
    return "Q5_K" if key.endswith("attn.o.weight") else "Q4_K"


def write_dit(
    path: Path,
    seed: int,
    *,
    type_of: TypeOf,
    flat_patches: bool = False,
    size: DiTSize | None = None,
) -> None:
    """Write a text-to-video transformer, the values those of the other tiny files.

    Args:
        path: the file.
        seed: of all values.
        type_of: ggml type of the blocks' matrices.
        flat_patches: write the patch embedding as a matrix with a note of its shape, else in five dimensions.
        size: sizes, a multiple of 256 in width.
    """
    weights = fill.tensors(dit(size or DiTSize()), file="dit", seed=seed)
    notes = {}
    if flat_patches:
        patches = weights["patch_embedding.weight"]
        notes["comfy.gguf.orig_shape.patch_embedding.weight"] = list(patches.shape)
        weights["patch_embedding.weight"] = patches.flatten(1)
    types = {key: _stored_type(key, tensor, type_of) for key, tensor in weights.items()}
    write_tensors(path, "wan", weights, types, notes)


def write_umt5(
    path: Path, seed: int, *, type_of: TypeOf, with_tokenizer: bool = True, size: UMT5Size | None = None
) -> None:
    """Write a text encoder under llama.cpp's names; the token embedding is packed as the blocks are."""
    size = size or UMT5Size()
    weights = fill.tensors(umt5(size), file="umt5", seed=seed)
    types = {umt5_name(key): _stored_type(key, tensor, type_of) for key, tensor in weights.items()}
    notes = tokenizer_notes(spiece.train(), size.vocabulary) if with_tokenizer else {}
    write_tensors(
        path, "t5encoder", {umt5_name(key): tensor for key, tensor in weights.items()}, types, notes
    )


_UMT5_IN_A_BLOCK = {
    "norm1": "attn_norm",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.o": "attn_o",
    "pos_embedding.embedding": "attn_rel_b",
    "norm2": "ffn_norm",
    "ffn.gate.0": "ffn_gate",
    "ffn.fc1": "ffn_up",
    "ffn.fc2": "ffn_down",
}


def umt5_name(key: str) -> str:
    """llama.cpp's name of a text encoder weight."""
    top_level = {"token_embedding.weight": "token_embd.weight", "norm.weight": "enc.output_norm.weight"}
    if key in top_level:
        return top_level[key]
    _, number, *names, leaf = key.split(".")
    return f"enc.blk.{number}.{_UMT5_IN_A_BLOCK['.'.join(names)]}.{leaf}"


def tokenizer_notes(model: bytes, rows: int) -> dict[str, object]:
    """The metadata llama.cpp makes of a SentencePiece model, filled up to the rows of the embedding table."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=model)
    own = range(processor.get_piece_size())
    padding = range(len(own), max(len(own), rows))
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [
            *(processor.id_to_piece(index).encode() for index in own),
            *(f"[PAD{index}]".encode() for index in padding),
        ],
        "tokenizer.ggml.scores": [*map(processor.get_score, own), *(-10000.0 for _ in padding)],
        "tokenizer.ggml.token_type": [
            *(_kind(processor, index) for index in own),
            *(_UNUSED for _ in padding),
        ],
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
        "tokenizer.ggml.precompiled_charsmap": spiece.character_map(model),
        "tokenizer.ggml.eos_token_id": processor.eos_id(),
        "tokenizer.ggml.unknown_token_id": processor.unk_id(),
        "tokenizer.ggml.padding_token_id": processor.pad_id(),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": True,
    }


_UNUSED = 5


def _kind(processor: object, index: int) -> int:
    """llama.cpp's number for the kind of a piece; 1 is an ordinary one."""
    kinds = {"is_unknown": 2, "is_control": 3, "is_unused": _UNUSED, "is_byte": 6}
    return next((kind for name, kind in kinds.items() if getattr(processor, name)(index)), 1)


def unknown_type(path: Path, seed: int) -> None:
    """A transformer, one weight of which has a type that ggml does not have."""
    write_dit(path, seed, type_of=plain("Q8_0"), size=DiTSize(layers=1))
    content = bytearray(path.read_bytes())
    name = b"blocks.0.self_attn.q.weight"
    place = content.index(name) + len(name) + 4 + 2 * 8  # after the rank and two dimensions
    assert content[place] == _Q8_0_NUMBER
    content[place] = _UNKNOWN_NUMBER
    path.write_bytes(content)


def truncated(path: Path, seed: int) -> None:
    """A download that stopped half-way."""
    write_dit(path, seed, type_of=plain("Q8_0"), size=DiTSize(layers=1))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def language_model(path: Path, seed: int) -> None:
    """A large language model of another program."""
    shapes = {
        "token_embd.weight": (64, 32),
        "blk.0.attn_q.weight": (32, 32),
        "blk.0.ffn_up.weight": (64, 32),
        "output_norm.weight": (32,),
    }
    weights = fill.tensors(shapes, file="llama", seed=seed)
    write_tensors(path, "llama", weights, dict.fromkeys(weights, "F32"), {})


def _stored_type(key: str, tensor: Tensor, type_of: TypeOf) -> str:
    is_matrix = tensor.ndim == 2 and key.endswith(".weight")
    if not is_matrix or "pos_embedding" in key or key.startswith("patch_embedding"):
        return "F32"
    return type_of(key) if key.startswith(("blocks.", "token_embedding.")) else "F16"


def write_tensors(
    path: Path,
    architecture: str,
    weights: Mapping[str, Tensor],
    types: Mapping[str, str],
    notes: Mapping[str, object],
) -> None:
    """Write a GGUF file.

    Args:
        path: replaced in one step.
        architecture: `general.architecture`.
        weights: float32 tensors.
        types: ggml type of each.
        notes: further metadata.
    """
    import gguf

    unfinished = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(unfinished, architecture)
    for name, value in notes.items():
        add_note(writer, name, value)
    for name, tensor in weights.items():
        kind = types[name]
        if kind == "BF16":
            rounded = tensor.bfloat16().contiguous().view(torch.uint8).numpy()
            writer.add_tensor(name, rounded, raw_dtype=gguf.GGMLQuantizationType.BF16)
        elif kind in ("F16", "F32"):
            writer.add_tensor(name, tensor.numpy().astype(np.float16 if kind == "F16" else np.float32))
        else:
            packed = pack(tensor.numpy(), kind)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType[kind])
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    os.replace(unfinished, path)


def add_note(writer: object, name: str, value: object) -> None:
    """Add a value to the metadata of a `GGUFWriter`: a list or bytes as an array, a number as uint32."""
    adders: dict[type, str] = {bool: "add_bool", int: "add_uint32", str: "add_string"}
    getattr(writer, adders.get(type(value), "add_array"))(name, value)


MAKERS: dict[tuple[str, str], Callable[[Path, int], None]] = {
    **{
        ("diffusion_models", f"tiny_wan21_t2v_{kind.lower()}.gguf"): partial(write_dit, type_of=plain(kind))
        for kind in (*PACKED_TYPES, "BF16")
    },
    ("diffusion_models", "tiny_wan21_t2v_q4_k_m.gguf"): partial(write_dit, type_of=q4_k_m, flat_patches=True),
    ("text_encoders", "tiny_umt5_xxl_encoder-q8_0.gguf"): partial(write_umt5, type_of=plain("Q8_0")),
    ("text_encoders", "tiny_umt5_xxl_encoder-q4_k_m.gguf"): partial(write_umt5, type_of=q4_k_m),
}
BAD_MAKERS: dict[tuple[str, str], Callable[[Path, int], None]] = {
    ("diffusion_models", "bad_unknown_type.gguf"): unknown_type,
    ("diffusion_models", "bad_truncated.gguf"): truncated,
    ("diffusion_models", "bad_language_model.gguf"): language_model,
}
