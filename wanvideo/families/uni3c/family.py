"""Uni3C as the engine sees it: a stream beside the blocks of any model with latents of 16 channels.

Its weights are no part of the model's file; they come with the input.
"""

from __future__ import annotations

from ...transformer.model import WanTransformer
from ...weights.checkpoint import Checkpoint
from ...weights.detect import ModelSpec
from ..family import Family
from .inputs import UNI3C
from .stream import Uni3CStream

LATENT_CHANNELS = 16  # the network was trained on latents of the Wan 2.1 VAE


class Uni3C(Family):
    """In every model whose latents the network can read; widths are compared when a network is there."""

    name = UNI3C

    def is_in(self, spec: ModelSpec) -> bool:
        """Whether the model's latents are those of the Wan 2.1 VAE."""
        return spec.config.out_channels == LATENT_CHANNELS

    def extend(self, model: WanTransformer, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        """Fill the stream point; no module is added."""
        del checkpoint, spec
        model.points.streams[UNI3C] = Uni3CStream(model.config.out_channels)


FAMILY = Uni3C()
