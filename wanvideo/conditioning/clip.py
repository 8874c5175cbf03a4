"""CLIP rows of pictures, as image to video models read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..errors import InputError

CLIP_WIDTH = 1280  # of ViT-H, the only tower Wan models were trained with
COMBINATIONS = ("average", "sum", "concat", "batch")


@dataclass(frozen=True)
class ClipEmbeds:
    """Value of WANVIDIMAGE_CLIPEMBEDS.

    Args:
        rows: ``[B, 257 k, 1280]``: k pictures one after the other (first and last frame), B pictures that
            share the frames of the video; after the last but one block of CLIP, not normed.
        negative: the same for the negative pass; None means that it reads `rows` too.
    """

    rows: Tensor
    negative: Tensor | None = None


def combine_rows(rows: Tensor, combination: str, *, strengths: Sequence[float] = ()) -> Tensor:
    """The rows of several pictures as one condition.

    A model norms each row before it uses it: a strength counts in relation to that of the other pictures,
    and where the model adds position embeddings (first and last frame models).

    Args:
        rows: ``[N, L, width]``, one entry per picture.
        combination: ``average`` and ``sum`` give ``[1, L, width]``, ``concat`` ``[1, N L, width]``, ``batch``
            ``[N, L, width]``. A single picture stays as it is.
        strengths: factors of the first pictures; the others have 1.

    Raises:
        InputError: another word.
    """
    if combination not in COMBINATIONS:
        raise InputError("combine_embeds", f"{combination!r} is not one of {', '.join(COMBINATIONS)}")
    count = len(rows)
    factors = [*strengths[:count], *[1.0] * (count - len(strengths))]
    weighted = rows * rows.new_tensor(factors)[:, None, None]
    if combination == "average":
        return weighted.mean(dim=0, keepdim=True)
    if combination == "sum":
        return weighted.sum(dim=0, keepdim=True)
    return weighted.flatten(0, 1)[None] if combination == "concat" else weighted


def mix_tiles(whole: Tensor, tiles: Tensor, ratio: float, *, as_pair: bool) -> Tensor:
    """The rows of whole pictures and of the same pictures in tiles.

    Args:
        whole: ``[N, L, width]``.
        tiles: ``[N, L, width]``.
        ratio: share of the whole picture, 0 to 1.
        as_pair: keep them as two entries each, ``ratio * whole`` and ``tiles``, to be combined like two
            pictures; otherwise the result is ``ratio * whole + (1 - ratio) * tiles``.

    Returns:
        ``[2 N, L, width]`` as pairs, else ``[N, L, width]``.
    """
    if as_pair:
        return torch.stack([ratio * whole, tiles], dim=1).flatten(0, 1)
    return ratio * whole + (1.0 - ratio) * tiles


def as_clip_embeds(value: object, input_name: str, *, width: int = CLIP_WIDTH) -> ClipEmbeds:
    """CLIP rows from a socket: ours, the dict of other packs, or ComfyUI's CLIP_VISION_OUTPUT.

    Args:
        value: what is connected.
        input_name: the node input, for messages.
        width: of the rows the model reads.

    Raises:
        InputError: something else, or rows of another width.
    """
    embeds = _read(value, input_name)
    check_rows(embeds.rows, input_name, width=width)
    if embeds.negative is not None:
        check_rows(embeds.negative, input_name, width=width)
    if isinstance(value, ClipEmbeds):
        return embeds
    negative = None if embeds.negative is None else embeds.negative.float().cpu()
    return ClipEmbeds(embeds.rows.float().cpu(), negative)


def check_rows(rows: object, input_name: str, *, width: int = CLIP_WIDTH) -> None:
    """Raise :class:`InputError` unless `rows` is a tensor ``[B, L, width]``."""
    if not isinstance(rows, Tensor) or rows.ndim != 3:
        found = tuple(rows.shape) if isinstance(rows, Tensor) else _kind(rows)
        raise InputError(input_name, f"expected CLIP rows [B, tokens, {width}], got {found}")
    if rows.shape[-1] != width:
        raise InputError(
            input_name,
            f"these image embeds are {rows.shape[-1]} wide, the model reads {width}: they come from another "
            "image encoder; load CLIP ViT-H (clip_vision_h or open-clip-xlm-roberta-large-vit-huge-14)",
        )


def _read(value: object, input_name: str) -> ClipEmbeds:
    if isinstance(value, ClipEmbeds):
        return value
    found = _kind(value)
    if isinstance(value, Mapping):
        entries = cast("Mapping[str, Tensor | None]", value)
        rows, negative = entries.get("clip_embeds"), entries.get("negative_clip_embeds")
    else:
        rows, negative = getattr(value, "penultimate_hidden_states", None), None
    if rows is not None:
        return ClipEmbeds(rows, negative)
    raise InputError(
        input_name,
        f"expected CLIP image embeds, got {found}; connect WanVideo ClipVision Encode or "
        "ComfyUI's CLIP Vision Encode",
    )


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
