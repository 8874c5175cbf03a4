"""Self- and cross-attention of a Wan block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..weights.linear import WanLinear
from .config import HEAD_WIDTH, WanConfig
from .context import BlockContext
from .norms import RMSNorm
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

    def forward(self, x: Tensor, context: BlockContext) -> Tensor:
        """``[B, L, D] -> [B, L, D]``."""
        norm = context.options.rms_norm
        query = context.rope.rotate(split_heads(self.norm_q(self.q(x), norm)))
        key = context.rope.rotate(split_heads(self.norm_k(self.k(x), norm)))
        value = split_heads(self.v(x))
        for rule in context.rules:
            query, key, value = rule.project(query, key, value, context)
        output = attend_visible(query, key, value, context)
        for rule in context.rules:
            output = rule.attended(output, query, context)
        return self.o(output)


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

    def forward(self, x: Tensor, context: BlockContext) -> Tensor:
        """``[B, L, D] -> [B, L, D]``; tokens no text part covers attend to no text."""
        norm = context.options.rms_norm
        query = split_heads(self.norm_q(self.q(x), norm))
        output = self._text(query, context)
        if context.image is not None:
            key = split_heads(self.norm_k_img(self.k_img(context.image), norm))
            value = split_heads(self.v_img(context.image))
            output = output + context.attention(query, key, value)
        return self.o(output)

    def _text(self, query: Tensor, context: BlockContext) -> Tensor:
        parts = []
        for part in context.text:
            key = split_heads(self.norm_k(self.k(part.tokens), context.options.rms_norm))
            value = split_heads(self.v(part.tokens))
            parts.append(context.attention(query[:, part.start : part.stop], key, value))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def split_heads(x: Tensor) -> Tensor:
    """``[B, L, D] -> [B, L, N, 128]``."""
    return x.unflatten(-1, (-1, HEAD_WIDTH))


def attend_visible(query: Tensor, key: Tensor, value: Tensor, context: BlockContext) -> Tensor:
    """Attention in which each segment sees the segments it may, as one call per visibility.

    Keys beyond the sequence (added by a rule) are seen by everyone.
    """
    if all(span.sees is None for span in context.spans):
        return context.attention(query, key, value)
    length = context.spans[-1].stop
    outputs = []
    for span in context.spans:
        visible = _visible_keys(span, context.spans, length, key.shape[1], key.device)
        outputs.append(
            context.attention(query[:, span.start : span.stop], key[:, visible], value[:, visible])
        )
    return torch.cat(outputs, dim=1)


def _visible_keys(
    span: Span, spans: tuple[Span, ...], length: int, keys: int, device: torch.device
) -> Tensor | slice:
    if span.sees is None:
        return slice(None)
    seen = [torch.arange(s.start, s.stop, device=device) for s in spans if s.role in span.sees]
    return torch.cat([*seen, torch.arange(length, keys, device=device)])
