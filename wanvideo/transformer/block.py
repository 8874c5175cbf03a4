"""One Wan transformer block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import CrossAttention, SelfAttention
from .config import WanConfig
from .context import BlockContext
from .feed_forward import FeedForward
from .modulation import block_modulation
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
        """``[B, L, D] -> [B, L, D]``.

        The block owns ``x`` and overwrites it: what it returns shares its memory (unless ``x`` has gaps).
        Whoever wants to keep the tokens that enter a block clones them first.
        """
        x = x.contiguous()
        attention, feed_forward = block_modulation(self.modulation, context.time, self.epsilon)
        self.self_attn.add_to(x, attention, context)
        if context.text or context.image:
            self.cross_attn.add_to(x, self.norm3, context)
        for name, sublayer in self.sublayers.items():
            if name in context.inputs:
                x.add_(sublayer(x, context.inputs[name], context))
        self.ffn.add_to(x, feed_forward, context)
        return x
