"""The VACE network: blocks beside the model's, each with a result that is added to the video's tokens.

Source: https://github.com/ali-vilab/VACE, ``vace/models/wan/modules/model.py``. There all VACE blocks run
before the first block of the model and their results are kept; here each runs right behind the model's block
its result belongs to and adds it at once, which gives the same numbers and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...attention.registry import TokenLayout, bind
from ...conditioning.geometry import PATCH_SIZE
from ...transformer.block import WanBlock
from ...transformer.chunking import token_slices
from ...transformer.config import WanConfig
from ...transformer.context import BlockContext
from ...transformer.patches import PatchEmbedding
from ...transformer.points import StreamStart
from ...transformer.segments import MAIN
from ...weights.linear import WanLinear
from .inputs import VaceContext, VaceInput


class VaceBlock(WanBlock):
    """A block of the model's kind, with a projection of its result.

    Args:
        config: of the model, without the image branch.
        is_first: it has a projection of the embedded context too.
    """

    def __init__(self, config: WanConfig, *, is_first: bool) -> None:
        super().__init__(config)
        self.before_proj = WanLinear(config.dim, config.dim) if is_first else None
        self.after_proj = WanLinear(config.dim, config.dim)


class VaceStream:
    """Extension point 9.

    Args:
        embedding: of the contexts, into tokens.
        blocks: in order.
        layers: of the model, behind which they run.
    """

    def __init__(self, embedding: PatchEmbedding, blocks: Sequence[VaceBlock], layers: Sequence[int]) -> None:
        self.embedding = embedding
        self._blocks = {layer + 1: block for layer, block in zip(layers, blocks, strict=True)}

    @property
    def blocks(self) -> Mapping[int, nn.Module]:
        """Its blocks, by the model's block before which they run."""
        return self._blocks

    def begin(self, family_input: VaceInput, start: StreamStart) -> VaceSession:
        """Begin from the tokens that enter the model's first block."""
        return VaceSession(self, family_input.contexts, start)


class VaceSession:
    """One forward: each context has tokens of its own, which pass through all VACE blocks.

    A block serves every context while its weights are on the device.

    Args:
        stream: it is a forward of.
        contexts: prepared, with the strengths of the step.
        start: of the forward.
    """

    def __init__(self, stream: VaceStream, contexts: Sequence[VaceContext], start: StreamStart) -> None:
        self._embedding = stream.embedding
        self._numbers = {index: number for number, index in enumerate(stream.blocks)}
        self._contexts = contexts
        self._step = start.run.step
        self._main = next(span for span in start.context.spans if span.role == MAIN)
        self._within = start.context.within(self._main)
        _, _, frames, rows, columns = start.latent.shape
        self._layout = TokenLayout((frames, rows // PATCH_SIZE[1], columns // PATCH_SIZE[2]), 0)
        own = start.tokens[:, self._main.start : self._main.stop]
        self._states = [own.clone() for _ in contexts]

    def before_block(self, index: int, tokens: Tensor) -> Tensor:
        """Nothing to do."""
        del index
        return tokens

    def run_block(self, index: int, block: nn.Module, tokens: Tensor) -> Tensor:
        """Take each context's tokens through a block, and add what it makes of them to the video's."""
        assert isinstance(block, VaceBlock)
        within = self._context_of(self._numbers[index])
        own = tokens[:, self._main.start : self._main.stop]
        for number, context in enumerate(self._contexts):
            state = self._states[number]
            if block.before_proj is not None:
                _add_embedded(state, context, self._embedding, block.before_proj, within)
            self._states[number] = state = block(state, within)
            assert isinstance(context.strength, float)
            _add_projected(own, state, block.after_proj, context.strength, within)
        return tokens

    def _context_of(self, number: int) -> BlockContext:
        """What a VACE block reads, with the attention chosen for it."""
        chosen = self._within.options.side_attention_for(self._step, number) or self._within.attention
        return replace(self._within, self_attention=bind(chosen, self._layout), block_index=number)

    def after_block(self, index: int, tokens: Tensor) -> Tensor:
        """Nothing to do."""
        del index
        return tokens


def _add_embedded(
    state: Tensor, context: VaceContext, embedding: PatchEmbedding, projection: WanLinear, block: BlockContext
) -> None:
    """Add the projected context to ``state [B, L, D]``, a few latent frames at a time."""
    frames = context.inactive.values.shape[2]
    per_frame = state.shape[1] // frames
    layer = projection.prepare(state.dtype)
    at_once = -(-frames // max(1, block.options.row_chunks))
    for part in token_slices(frames, at_once):
        embedded = embedding(context.channels(part)).flatten(1, 3)
        embedded = embedded.to(state.dtype, memory_format=torch.contiguous_format).contiguous()
        state[:, part.start * per_frame : part.stop * per_frame] += layer(embedded)


def _add_projected(
    tokens: Tensor, state: Tensor, projection: WanLinear, strength: float, block: BlockContext
) -> None:
    """Add ``strength * projection(state)`` to ``tokens [B, L, D]``, one row chunk at a time."""
    layer = projection.prepare(state.dtype)
    for rows in block.chunks(state):
        tokens[:, rows].add_(layer(state[:, rows]), alpha=strength)
