"""Self- and cross-attention of a Wan block.

Both add their result to the tokens they are given, chunk by chunk: keys and values are made for all
tokens first, queries and everything behind them for one chunk of tokens at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attention.registry import needs_whole_sequence
from ..weights.formats import PreparedLinear
from ..weights.linear import WanLinear
from .chunking import RowBuffer
from .config import WanConfig
from .context import BlockContext, TextPart
from .modulation import Modulation
from .norms import LayerNorm, PreparedRMSNorm, RMSNorm
from .rows import split_heads
from .segments import Span


class SelfAttention(nn.Module):
    """Attention of the sequence with itself: normed queries and keys, RoPE, no mask."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.q = WanLinear(config.dim, config.dim)
        self.k = WanLinear(config.dim, config.dim)
        self.v = WanLinear(config.dim, config.dim)
        self.o = WanLinear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim, config.epsilon)
        self.norm_k = RMSNorm(config.dim, config.epsilon)

    def add_to(self, x: Tensor, modulation: Modulation, context: BlockContext) -> None:
        """Add the modulated and gated attention to the tokens ``[B, L, D]``.

        Rules, restricted visibility and attention by place in the video work on the whole sequence: queries
        and the attended values are then whole too.
        """
        program = context.options.program
        key, value = self._keys_values(x, modulation, context)
        query_layer, output_layer = self.q.prepare(x.dtype), self.o.prepare(x.dtype)
        norm = self.norm_q.prepare(x.dtype, context.options.rms_norm)
        whole = (
            context.rules
            or any(span.sees is not None for span in context.spans)
            or needs_whole_sequence(context.self_attention)
        )
        for rows in [slice(0, x.shape[1])] if whole else context.chunks(x):
            collected = RowBuffer(x.shape[0], rows.stop - rows.start)
            for part in context.parts(x, rows):
                values = program.queries(
                    part.of(x),
                    modulation.norm(part.row),
                    query_layer,
                    norm,
                    context.rope.rows(part.start, part.stop),
                )
                collected.put(part.member, part.start - rows.start, values)
                del values
            if whole:
                attended = _attend_by_rules(collected.tensor, key, value, context)
            else:
                attended = context.self_attention(collected.tensor, key, value)
            del collected
            for part in context.parts(x, rows):
                program.add_projected(
                    part.of(x),
                    attended[part.member, part.start - rows.start : part.stop - rows.start],
                    output_layer,
                    modulation.gate[part.row],
                )
            del attended  # or they would live through the next chunk

    def _keys_values(self, x: Tensor, modulation: Modulation, context: BlockContext) -> tuple[Tensor, Tensor]:
        key_layer, value_layer = self.k.prepare(x.dtype), self.v.prepare(x.dtype)
        norm = self.norm_k.prepare(x.dtype, context.options.rms_norm)
        keys, values = RowBuffer(x.shape[0], x.shape[1]), RowBuffer(x.shape[0], x.shape[1])
        for part in context.parts(x):
            key, value = context.options.program.keys_values(
                part.of(x),
                modulation.norm(part.row),
                key_layer,
                value_layer,
                norm,
                context.rope.rows(part.start, part.stop),
            )
            keys.put(part.member, part.start, key)
            values.put(part.member, part.start, value)
            del key, value
        return keys.tensor, values.tensor


@dataclass(frozen=True)
class _PartKeys:
    """Keys and values ``[B or 1, M, N, 128]`` of a text or a picture, for tokens ``start`` to ``stop``."""

    key: Tensor
    value: Tensor
    start: int
    stop: int


class CrossAttention(nn.Module):
    """Attention to the text rows, and to the CLIP image rows where the model has keys for them.

    Both branches share queries and output projection (Wan2.1 image-to-video).
    """

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.q = WanLinear(config.dim, config.dim)
        self.k = WanLinear(config.dim, config.dim)
        self.v = WanLinear(config.dim, config.dim)
        self.o = WanLinear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim, config.epsilon)
        self.norm_k = RMSNorm(config.dim, config.epsilon)
        if config.has_image_branch:
            self.k_img = WanLinear(config.dim, config.dim)
            self.v_img = WanLinear(config.dim, config.dim)
            self.norm_k_img = RMSNorm(config.dim, config.epsilon)

    def add_to(self, x: Tensor, norm: LayerNorm, context: BlockContext) -> None:
        """Add the attention of the normed tokens to the tokens ``[B, L, D]``.

        Tokens no text part covers attend to no text.
        """
        program = context.options.program
        texts = self._text_keys(context)
        images = self._image_keys(context)
        prepared_norm = norm.prepare()
        query_layer, output_layer = self.q.prepare(x.dtype), self.o.prepare(x.dtype)
        query_norm = self.norm_q.prepare(x.dtype, context.options.rms_norm)
        for rows in context.chunks(x):
            collected = RowBuffer(x.shape[0], rows.stop - rows.start)
            for member in range(x.shape[0]):
                values = program.queries(x[member, rows], prepared_norm, query_layer, query_norm, None)
                collected.put(member, 0, values)
                del values
            query = collected.tensor
            attended = _attend_parts(query, rows, texts, context)
            if images:
                attended = attended + _attend_parts(query, rows, images, context)
            del collected, query
            for member in range(x.shape[0]):
                program.add_projected(x[member, rows], attended[member], output_layer, None)
            del attended

    def _text_keys(self, context: BlockContext) -> list[_PartKeys]:
        if not context.text:
            return []
        dtype = context.text[0].tokens.dtype
        norm = self.norm_k.prepare(dtype, context.options.rms_norm)
        key_layer, value_layer = self.k.prepare(dtype), self.v.prepare(dtype)

        return [_part_keys(part, key_layer, value_layer, norm) for part in context.text]

    def _image_keys(self, context: BlockContext) -> list[_PartKeys]:
        if not context.image:
            return []
        dtype = context.image[0].tokens.dtype
        norm = self.norm_k_img.prepare(dtype, context.options.rms_norm)
        key_layer, value_layer = self.k_img.prepare(dtype), self.v_img.prepare(dtype)
        return [_part_keys(part, key_layer, value_layer, norm) for part in context.image]


def _part_keys(
    part: TextPart, key_layer: PreparedLinear, value_layer: PreparedLinear, norm: PreparedRMSNorm
) -> _PartKeys:
    key = norm(key_layer(part.tokens).flatten(0, 1)).unflatten(0, part.tokens.shape[:2])
    return _PartKeys(split_heads(key), split_heads(value_layer(part.tokens)), part.start, part.stop)


def _for_batch(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values shared by the videos of a batch."""
    size = (query.shape[0], -1, -1, -1)
    return key.expand(size), value.expand(size)


def _attend_parts(query: Tensor, rows: slice, parts: list[_PartKeys], context: BlockContext) -> Tensor:
    """``[B, l, D]`` for the queries of tokens ``rows``; zero where no part is."""
    attended: Tensor | None = None
    for each in parts:
        start, stop = max(rows.start, each.start), min(rows.stop, each.stop)
        if start >= stop:
            continue
        own = slice(start - rows.start, stop - rows.start)
        part = context.attention(query[:, own], *_for_batch(query, each.key, each.value))
        if stop - start == rows.stop - rows.start:
            return part
        if attended is None:
            attended = torch.zeros_like(query).flatten(2)
        attended[:, own] = part
    return torch.zeros_like(query).flatten(2) if attended is None else attended


def _attend_by_rules(query: Tensor, key: Tensor, value: Tensor, context: BlockContext) -> Tensor:
    for rule in context.rules:
        query, key, value = rule.project(query, key, value, context)
    attended = attend_visible(query, key, value, context)
    for rule in context.rules:
        attended = rule.attended(attended, query, context)
    return attended


def attend_visible(query: Tensor, key: Tensor, value: Tensor, context: BlockContext) -> Tensor:
    """Attention in which each segment sees the segments it may, as one call per visibility.

    Keys beyond the sequence (added by a rule) are seen by everyone. Attention by place in the video needs
    the whole sequence; parts of one are attended to without it.
    """
    attention = context.self_attention
    if all(span.sees is None for span in context.spans):
        return attention(query, key, value)
    if needs_whole_sequence(attention):
        attention = context.attention
    length = context.spans[-1].stop
    outputs = []
    for span in context.spans:
        visible = _visible_keys(span, context.spans, length, key.shape[1], key.device)
        outputs.append(attention(query[:, span.start : span.stop], key[:, visible], value[:, visible]))
    return torch.cat(outputs, dim=1)


def _visible_keys(
    span: Span, spans: tuple[Span, ...], length: int, keys: int, device: torch.device
) -> Tensor | slice:
    if span.sees is None:
        return slice(None)
    seen = [torch.arange(s.start, s.stop, device=device) for s in spans if s.role in span.sees]
    return torch.cat([*seen, torch.arange(length, keys, device=device)])
