"""What a CLIP image encoder file looks like: its key layouts, its sizes, and what is not one.

The engine speaks the official names of Wan2.1 `wan/modules/clip.py`, with queries, keys and values as three
layers. The other layouts are those of transformers (`vision_model.*`, with or without that prefix) and of
OpenCLIP (`visual.transformer.resblocks.*`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isqrt
from types import MappingProxyType

import torch
from torch import Tensor

from ..errors import ModelFileError
from ..weights.checkpoint import Checkpoint, StoredTensor
from ..weights.formats.expect import decode, needs_decoding
from ..weights.keys import find_prefix, with_current_scale_name
from ..weights.kinds import kind_of, wrong_kind

EXPECTED = "a CLIP image encoder"
ADVICE = (
    "Wan takes CLIP ViT-H (width 1280): clip_vision_h or open-clip-xlm-roberta-large-vit-huge-14_visual_fp16"
)
HEAD_WIDTH = 80  # of ViT-H: 16 heads of 80; no file says it, so other towers are not guessed
FEWEST_LAYERS = 2  # the rows are taken after the last but one
_TOWERS = {768: "ViT-B", 1024: "ViT-L", 1152: "SigLIP", 1408: "ViT-g", 1664: "ViT-bigG"}
_KIND = "CLIP image encoder"  # as weights.kinds calls it
_PROJECTIONS = ("q", "k", "v")


@dataclass(frozen=True)
class ClipVisionConfig:
    """Sizes of a CLIP image encoder, read from the shapes in its file.

    Args:
        width: of the rows (ViT-H: 1280).
        heads: attention heads (16).
        feed_forward_width: inner width of the feed-forward (5120).
        layers: blocks (32).
        patch: side of a patch in pixels (14).
        grid: patches per side (16).
        projection_width: of the embedding shared with text (1024); None when the file has no projection.
    """

    width: int
    heads: int
    feed_forward_width: int
    layers: int
    patch: int
    grid: int
    projection_width: int | None

    @property
    def tokens(self) -> int:
        """Rows per picture: one per patch and the class row in front."""
        return self.grid * self.grid + 1

    @property
    def image_size(self) -> int:
        """Side of the square picture in pixels."""
        return self.grid * self.patch


@dataclass(frozen=True)
class _Layout:
    """One way to name the tensors.

    Args:
        landmark: the class embedding, at the end of a key.
        beside: another key that must be there, with the same prefix.
        outside: paths of the layout that lie outside the prefix, as it ends in that.
        block: start of the keys of a block, with a group for its number.
        names: paths of the layout (in a block: after `block`) and the names of the engine.
    """

    landmark: str
    beside: str
    block: re.Pattern[str]
    names: Mapping[str, str]
    outside: str = ""

    def prefix(self, checkpoint: Checkpoint) -> str | None:
        """What stands before the names, or None when the file is not in this layout."""
        prefix = find_prefix(checkpoint.keys(), (self.landmark,))
        return prefix if prefix is not None and prefix + self.beside in checkpoint else None

    def renamed(self, checkpoint: Checkpoint, prefix: str) -> Checkpoint:
        """The tower's tensors under the engine's names; the text tower and markers are left out."""
        outer = prefix.removesuffix(self.outside) if self.outside else prefix

        def rename(key: str) -> str | None:
            if key == f"{outer}visual_projection.weight":
                return "head.weight"
            return self._name(with_current_scale_name(key[len(prefix) :])) if key.startswith(prefix) else None

        return checkpoint.renamed(rename)

    def _name(self, key: str) -> str | None:
        if key.startswith(_UNUSED):
            return None
        place = self.block.match(key)
        start = f"blocks.{place[1]}." if place else ""
        rest = key[place.end() :] if place else key
        path, _, leaf = rest.rpartition(".")
        if rest in self.names:
            return start + self.names[rest]
        return f"{start}{self.names[path]}.{leaf}" if path in self.names else key


# A table of numbers in older transformers files; and, where the tower has no prefix of its own, the rest.
_UNUSED = ("embeddings.position_ids", "textual.", "text_model.", "text_projection", "log_scale", "logit_")
_OFFICIAL = _Layout(
    landmark="cls_embedding",
    beside="transformer.0.attn.to_qkv.weight",
    block=re.compile(r"transformer\.(\d+)\."),
    names=MappingProxyType(
        {
            "attn.to_qkv": "attn.to_qkv",
            "attn.proj": "attn.proj",
            "norm1": "norm1",
            "norm2": "norm2",
            "mlp.0": "mlp.0",
            "mlp.2": "mlp.2",
        }
    ),
)
_OPEN_CLIP = _Layout(
    landmark="class_embedding",
    beside="transformer.resblocks.0.attn.in_proj_weight",
    block=re.compile(r"transformer\.resblocks\.(\d+)\."),
    names=MappingProxyType(
        {
            "class_embedding": "cls_embedding",
            "positional_embedding": "pos_embedding",
            "conv1": "patch_embedding",
            "ln_pre": "pre_norm",
            "ln_post": "post_norm",
            "proj": "head",
            "attn.in_proj_weight": "attn.to_qkv.weight",
            "attn.in_proj_bias": "attn.to_qkv.bias",
            "attn.out_proj": "attn.proj",
            "ln_1": "norm1",
            "ln_2": "norm2",
            "mlp.c_fc": "mlp.0",
            "mlp.c_proj": "mlp.2",
        }
    ),
)
_HF = _Layout(
    landmark="embeddings.class_embedding",
    beside="encoder.layers.0.self_attn.q_proj.weight",
    block=re.compile(r"encoder\.layers\.(\d+)\."),
    names=MappingProxyType(
        {
            "embeddings.class_embedding": "cls_embedding",
            "embeddings.position_embedding.weight": "pos_embedding",
            "embeddings.patch_embedding": "patch_embedding",
            "pre_layrnorm": "pre_norm",
            "post_layernorm": "post_norm",
            "self_attn.q_proj": "attn.q",
            "self_attn.k_proj": "attn.k",
            "self_attn.v_proj": "attn.v",
            "self_attn.out_proj": "attn.proj",
            "layer_norm1": "norm1",
            "layer_norm2": "norm2",
            "mlp.fc1": "mlp.0",
            "mlp.fc2": "mlp.2",
        }
    ),
    outside="vision_model.",
)
_LAYOUTS = (_OFFICIAL, _HF, _OPEN_CLIP)


def own_clip_vision(checkpoint: Checkpoint) -> Checkpoint:
    """The image tower's tensors under the engine's names and in its shapes; all else is left out.

    Raises:
        ModelFileError: the file is not a CLIP image encoder; says what it looks like.
    """
    for layout in _LAYOUTS:
        prefix = layout.prefix(checkpoint)
        if prefix is not None:
            return _in_own_shapes(layout.renamed(checkpoint, prefix))
    if kind_of(checkpoint).name == _KIND:
        raise ModelFileError(
            checkpoint.path, f"is an image encoder without a class embedding (SigLIP?). {ADVICE}"
        )
    raise wrong_kind(checkpoint, EXPECTED)


def read_config(own: Checkpoint) -> ClipVisionConfig:
    """The sizes of a tower under the engine's names.

    Raises:
        ModelFileError: a tower that is not ViT-H's kind, sizes that do not fit together, or missing weights.
    """
    width, patch = _patch_sizes(own)
    layers = _layers(own.keys())
    if width % HEAD_WIDTH:
        name = f" ({_TOWERS[width]})" if width in _TOWERS else ""
        raise ModelFileError(
            own.path, f"is an image encoder of width {width}{name} with {layers} layers. {ADVICE}"
        )
    tokens = own.shape("pos_embedding")[0]
    grid = isqrt(max(tokens - 1, 0))
    if layers < FEWEST_LAYERS or grid < 1 or grid * grid + 1 != tokens:
        raise ModelFileError(
            own.path, f"has {layers} layers and {tokens} positions, which is no CLIP image encoder; damaged"
        )
    head = own.shape("head.weight") if "head.weight" in own else None
    return ClipVisionConfig(
        width=width,
        heads=width // HEAD_WIDTH,
        feed_forward_width=own.shape("blocks.0.mlp.0.weight")[0],
        layers=layers,
        patch=patch,
        grid=grid,
        projection_width=head[0] if head else None,
    )


def _patch_sizes(own: Checkpoint) -> tuple[int, int]:
    """Width of the rows and side of a patch."""
    shape = own.shape("patch_embedding.weight")
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise ModelFileError(
            own.path, f"patch_embedding.weight has shape {list(shape)}, expected [width, 3, side, side]"
        )
    return shape[0], shape[2]


def _layers(keys: Iterable[str]) -> int:
    numbers = {int(key.split(".")[1]) for key in keys if key.startswith("blocks.")}
    return 1 + max(numbers, default=-1)


def _in_own_shapes(named: Checkpoint) -> Checkpoint:
    """One layer each for q, k and v, embeddings as rows, the projection as ``[out, in]``."""
    replaced: dict[str, StoredTensor] = {}
    used_up: set[str] = set()
    for key in named:
        if ".attn.to_qkv." in key:
            used_up.add(key)
            if key.endswith((".weight", ".bias")):
                replaced.update(_split(named, key))
    for key in ("cls_embedding", "pos_embedding"):
        if key in named:
            shape = named.shape(key)[-1:] if key == "cls_embedding" else named.shape(key)[-2:]
            replaced[key] = _changed(named, key, shape, lambda tensor, shape=shape: tensor.reshape(shape))
    if "head" in named:
        used_up.add("head")
        replaced["head.weight"] = _changed(
            named, "head", named.shape("head")[::-1], lambda tensor: tensor.T.contiguous(), is_made=True
        )
    rest = named.renamed(lambda key: None if key in used_up else key)
    return rest.replaced(replaced)


def _split(named: Checkpoint, key: str) -> dict[str, StoredTensor]:
    """Three views on a joined layer, or three parts of its numbers when it is packed or scaled."""
    rows, *rest = named.shape(key)
    if rows % len(_PROJECTIONS):
        raise ModelFileError(named.path, f"{key} has {rows} rows, which is not three times a width; damaged")
    size = rows // len(_PROJECTIONS)
    parts: dict[str, StoredTensor] = {}
    for number, name in enumerate(_PROJECTIONS):
        part = slice(number * size, (number + 1) * size)
        parts[key.replace("to_qkv", name)] = _changed(
            named, key, (size, *rest), lambda tensor, part=part: tensor[part]
        )
    return parts


def _changed(
    named: Checkpoint,
    key: str,
    shape: tuple[int, ...],
    change: Callable[[Tensor], Tensor],
    *,
    is_made: bool = False,
) -> StoredTensor:
    is_packed = needs_decoding(named, key)
    return StoredTensor(
        shape=shape,
        dtype=torch.float32 if is_packed else named.dtype(key),
        read=partial(_read, named, key, change, is_packed),
        release=lambda: named.release(key),
        is_made=is_made or is_packed or named.is_made(key),
        path=named.path_of(key),
    )


def _read(named: Checkpoint, key: str, change: Callable[[Tensor], Tensor], is_packed: bool) -> Tensor:
    return change(decode(named, key, torch.float32) if is_packed else named.tensor(key))
