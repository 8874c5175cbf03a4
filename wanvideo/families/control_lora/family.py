"""Control LoRA as the engine sees it: the point "control" of a model the LoRA was merged into."""

from __future__ import annotations

from ...conditioning.channel_parts import ControlChannels
from ...conditioning.control import CONTROL
from ...transformer.model import WanTransformer
from ...weights.checkpoint import Checkpoint
from ...weights.detect import ModelSpec
from ..family import Family


class ControlLora(Family):
    """A text-to-video model of 16 latent channels that takes 32: noise and control video."""

    name = "control_lora"
    capabilities = frozenset({"control lora"})

    def extend(self, model: WanTransformer, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        """Fill the channels behind the noise."""
        del checkpoint
        model.points.add_channels(CONTROL, ControlChannels(spec.config.out_channels))


FAMILY = ControlLora()
