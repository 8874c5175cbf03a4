"""CLIP rows of pictures, as image to video models read them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..encoders.clip_vision_pixels import check_images, encode_tiles
from ..errors import InputError

log = logging.getLogger(__name__)

CLIP_WIDTH = 1280  # of ViT-H, the only tower Wan models were trained with
COMBINATIONS = ("average", "sum", "concat", "batch")
Encode = Callable[[Tensor], Tensor]
"""Pictures ``[B, H, W, C]`` in [0, 1] to rows ``[B, tokens, width]``, after the last but one block."""


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


@dataclass(frozen=True)
class PictureEncoding:
    """How pictures become rows.

    Args:
        encode: from pictures to rows.
        combination: one of ``COMBINATIONS``.
        tiles: per side; below 2 there are none.
        ratio: share of the whole picture where there are tiles.
    """

    encode: Encode
    combination: str
    tiles: int = 0
    ratio: float = 0.5

    def rows(self, pictures: Mapping[str, Tensor], *, as_pair: bool) -> Tensor:
        """Rows of every picture, ``[N, tokens, width]``.

        Args:
            pictures: batches ``[B, H, W, C]`` by the input they come from; sizes may differ.
            as_pair: with tiles, the whole picture and its tiles are two entries.
        """
        for name, images in pictures.items():
            check_images(images, input_name=name)
        whole = torch.cat([self.encode(images) for images in pictures.values()])
        if self.tiles < 2:
            return whole
        tiled = [
            encode_tiles(self.encode, images, self.tiles, input_name=name)
            for name, images in pictures.items()
        ]
        return mix_tiles(whole, torch.cat(tiled), self.ratio, as_pair=as_pair)

    def embeds(
        self,
        pictures: Mapping[str, Tensor],
        negative_image: Tensor | None = None,
        *,
        strengths: tuple[float, float] = (1.0, 1.0),
    ) -> ClipEmbeds:
        """The condition of the positive and, when there is a picture for it, of the negative pass.

        With tiles, a single picture and its tiles are combined like two pictures.

        Args:
            pictures: as for :meth:`rows`.
            negative_image: one picture, or one for each of `pictures`; combined as those are.
            strengths: factors of the first two entries of `pictures`.

        Raises:
            InputError: another number of negative pictures.
        """
        count = sum(len(images) for images in pictures.values())
        as_pair = count == 1
        if negative_image is not None and len(negative_image) not in (1, count):
            raise InputError(
                "negative_image",
                f"{len(negative_image)} pictures against {count} in {' and '.join(pictures)}: the negative "
                "pass needs one picture, or one for each of them",
            )
        rows = self.rows(pictures, as_pair=as_pair)
        positive = combine_rows(rows, self.combination, strengths=strengths)
        if negative_image is None:
            return ClipEmbeds(positive)
        negative = self.rows({"negative_image": negative_image}, as_pair=as_pair)
        if self.combination in ("concat", "batch") and len(negative) == 1 < len(rows):
            log.info("negative_image stands for each of the %d pictures", len(rows))
            negative = negative.expand(len(rows), -1, -1)
        return ClipEmbeds(positive, combine_rows(negative, self.combination))


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
