"""Uni3C beside the blocks of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...conditioning.image import IMAGE, MASK_CHANNELS
from ...transformer.context import BlockContext, RunState
from ...transformer.points import StreamStart
from ...transformer.rope import RopeOptions, grid_positions, rope_table
from ...transformer.segments import MAIN
from .inputs import UNI3C, Uni3CInput
from .network import HEAD_WIDTH, MaskEmbedding


@dataclass(frozen=True)
class Uni3CStream:
    """Extension point 9. The network comes with the input, so there are no blocks of the model's.

    Args:
        latent_channels: of the noise.
    """

    latent_channels: int

    @property
    def blocks(self) -> Mapping[int, nn.Module]:
        """None: the network is on the device as a whole."""
        return {}

    def begin(self, family_input: Uni3CInput, start: StreamStart) -> Uni3CSession:
        """Embed what the network sees."""
        noise = start.latent[:, : self.latent_channels]
        render = family_input.render.values.to(noise).expand(noise.shape[0], -1, -1, -1, -1)
        control = torch.cat([noise, self._mask(start), render], dim=1)
        return Uni3CSession(family_input, control, start)

    def _mask(self, start: StreamStart) -> Tensor:
        """The four mask channels of image models, zeros for others."""
        latent, place = start.latent, start.channels.get(IMAGE)
        if place is not None and place.stop - place.start == MASK_CHANNELS + self.latent_channels:
            return latent[:, place.start : place.start + MASK_CHANNELS]
        return latent.new_zeros((latent.shape[0], MASK_CHANNELS, *latent.shape[2:]))


class Uni3CSession:
    """One forward: block i of the network runs behind block i of the model and adds to the video's tokens.

    What a block adds depends on latent and timestep alone, so it is the same in all guidance passes. It is
    computed in each of them all the same: to keep the tokens of all blocks takes 1.3 GB for 81 frames of
    480p and 3.1 GB at 720p, and the network is about a fifteenth of a pass of the 14B model.

    Args:
        family_input: prepared.
        control: ``[B, 36, T, h, w]``.
        start: of the forward.
    """

    def __init__(self, family_input: Uni3CInput, control: Tensor, start: StreamStart) -> None:
        self._network = family_input.controlnet.network
        self._strength = family_input.strength
        self._main = next(span for span in start.context.spans if span.role == MAIN)
        grid = (control.shape[2], control.shape[3] // 2, control.shape[4] // 2)
        self._context = _context(family_input, start, grid)
        chunks = max(1, start.context.options.row_chunks)
        length = self._main.stop - self._main.start
        self._rows = -(-length // chunks)
        self._hidden: Tensor | None = self._network.embed(
            control, _mask_features(family_input, start.run), frames_at_once=-(-grid[0] // chunks)
        )

    def before_block(self, index: int, tokens: Tensor) -> Tensor:
        """Nothing to do."""
        del index
        return tokens

    def run_block(self, index: int, block: nn.Module, tokens: Tensor) -> Tensor:
        """Never called: there are no blocks that are walked."""
        del tokens
        raise AssertionError(f"block {index} is none of Uni3C's: {type(block).__name__}")

    def after_block(self, index: int, tokens: Tensor) -> Tensor:
        """Run the network's block of the same number, and add what it makes."""
        blocks, hidden = self._network.controlnet_blocks, self._hidden
        if hidden is None:
            return tokens
        with self._context.options.program.scope():
            hidden = blocks[index](hidden, self._context)
        own = tokens[:, self._main.start : self._main.stop]
        self._network.add_residual(index, own, hidden, strength=self._strength, rows=self._rows)
        self._hidden = hidden if index + 1 < len(blocks) else None
        return tokens


def _context(family_input: Uni3CInput, start: StreamStart, grid: tuple[int, int, int]) -> BlockContext:
    """The context of the network's blocks: the video's tokens alone, heads and positions of its own."""
    main = next(span for span in start.context.spans if span.role == MAIN)
    function, device = start.context.options.rope.function, start.tokens.device
    rope = start.run.memo(
        (UNI3C, "rope", grid),
        lambda: rope_table(grid_positions(grid), RopeOptions(function), device, head_width=HEAD_WIDTH),
    )
    controlnet = family_input.controlnet
    return replace(
        start.context.within(main),
        rope=rope,
        options=replace(start.context.options, program=controlnet.program),
        attention=controlnet.attention,
        self_attention=controlnet.attention,
    )


def _mask_features(family_input: Uni3CInput, run: RunState) -> Tensor | None:
    if family_input.mask is None:
        return None
    kept = run.memo((UNI3C, "mask"), _MaskFeatures)
    return kept.of(family_input.mask.values, family_input.controlnet.network.controlnet_mask_embedding)


class _MaskFeatures:
    """Those of the last mask: all forwards of a run have the same, unless it has context windows."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor] | None = None

    def of(self, mask: Tensor, embedding: MaskEmbedding) -> Tensor:
        """See ``MaskEmbedding.features``."""
        if self._last is None or self._last[0] is not mask:
            self._last = (mask, embedding.features(mask))
        return self._last[1]
