"""One Wan transformer block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import CrossAttention, SelfAttention
from .chunking import map_tokens
from .config import WanConfig
from .context import BlockContext
from .feed_forward import FeedForward
from .modulation import block_rows, gated_add, modulated_norm
from .norms import LayerNorm


class WanBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, modulated by the timestep.

    ``sublayers`` (extension point 7) run between cross-attention and feed-forward; each is called with
    ``(tokens, family_input, context)`` when the conditioning carries an input under its name, and its
    result is added to the stream.
    """

    parameter_dtype = "fp32"

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.epsilon = config.epsilon
        self.self_attn = SelfAttention(config)
        self.norm3 = LayerNorm(config.dim, config.epsilon)
        self.cross_attn = CrossAttention(config)
        self.sublayers = nn.ModuleDict()
        self.ffn = FeedForward(config.dim, config.ffn_dim)
        self.modulation = nn.Parameter(torch.empty(1, 6, config.dim), requires_grad=False)

    def forward(self, x: Tensor, context: BlockContext) -> Tensor:
        """``[B, L, D] -> [B, L, D]``."""
        runs = context.time.runs
        shift_attention, scale_attention, gate_attention, shift_ffn, scale_ffn, gate_ffn = block_rows(
            self.modulation, context.time
        )
        update = modulated_norm(x, shift_attention, scale_attention, runs, self.epsilon)
        x = gated_add(x, self.self_attn(update, context), gate_attention, runs)
        if context.text or context.image is not None:
            x = x + self.cross_attn(self.norm3(x), context)
        for name, sublayer in self.sublayers.items():
            if name in context.inputs:
                x = x + sublayer(x, context.inputs[name], context)
        update = modulated_norm(x, shift_ffn, scale_ffn, runs, self.epsilon)
        update = map_tokens(self.ffn, update, context.options.feed_forward_chunks)
        return gated_add(x, update, gate_ffn, runs)
