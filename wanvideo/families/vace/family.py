"""VACE as the engine sees it: a network of further blocks beside those of a model.

Its weights stand in a file of their own or in the model's. Any model of the same width and the same latents
takes them, whatever else joins its channels.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ...errors import ModelFileError
from ...transformer.model import WanTransformer
from ...transformer.patches import PatchEmbedding
from ...weights.checkpoint import Checkpoint
from ...weights.detect import ModelSpec
from ..family import Family
from .inputs import MASK_CHANNELS, VACE
from .stream import VaceBlock, VaceStream

PATCH_KEY = "vace_patch_embedding.weight"
FEED_FORWARD_KEY = "vace_blocks.0.ffn.0.weight"


class Vace(Family):
    """Point 9; adds ``vace_patch_embedding`` and ``vace_blocks``."""

    name = VACE
    capabilities = frozenset({"vace"})

    def extend(self, model: WanTransformer, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        """Add the modules, sized by the checkpoint's shapes.

        Raises:
            ModelFileError: the VACE weights are incomplete, or made for a model of other sizes.
        """
        count = _block_count(checkpoint)
        config = replace(
            spec.config,
            ffn_dim=checkpoint.shape(FEED_FORWARD_KEY)[0],
            has_image_branch=False,  # its blocks read the text alone, also beside an image-to-video model
        )
        _check_sizes(checkpoint, spec, count)
        embedding = PatchEmbedding(checkpoint.shape(PATCH_KEY)[1], config.dim)
        blocks = [VaceBlock(config, is_first=number == 0) for number in range(count)]
        model.add_module("vace_patch_embedding", embedding)
        model.add_module("vace_blocks", nn.ModuleList(blocks))
        model.points.streams[VACE] = VaceStream(embedding, blocks, layers_of(count, spec.config.layers))


def layers_of(count: int, layers: int) -> tuple[int, ...]:
    """The model's blocks behind which the results of VACE blocks are added.

    Args:
        count: of VACE blocks.
        layers: of the model.

    Source: the configurations of https://github.com/ali-vilab/VACE: every second block of the 1.3B, every
    fifth of the 14B model.
    """
    return tuple(range(0, count * (layers // count), layers // count))


def _block_count(checkpoint: Checkpoint) -> int:
    parts = (key.split(".") for key in checkpoint if key.startswith("vace_blocks."))
    numbers = {int(part[1]) for part in parts if len(part) > 2 and part[1].isdigit()}
    missing = [key for key in (PATCH_KEY, FEED_FORWARD_KEY) if key not in checkpoint]
    missing += [f"vace_blocks.{number}" for number in sorted(set(range(max(numbers, default=0))) - numbers)]
    if missing:
        raise ModelFileError(checkpoint.path, f"has an incomplete VACE module: {missing[0]} is missing")
    return len(numbers)


def _check_sizes(checkpoint: Checkpoint, spec: ModelSpec, count: int) -> None:
    width, channels = checkpoint.shape(PATCH_KEY)[:2]
    config = spec.config
    if width != config.dim:
        raise ModelFileError(
            checkpoint.path,
            f"has width {config.dim}, and the VACE module is for models of width {width}: take the module of "
            "this model's size (1536 is 1.3B, 5120 is 14B)",
        )
    wanted = 2 * config.out_channels + MASK_CHANNELS
    if channels != wanted:
        raise ModelFileError(
            checkpoint.path,
            f"has latents of {config.out_channels} channels, for which a VACE module has {wanted} channels; "
            f"this one has {channels}",
        )
    if count > config.layers:
        raise ModelFileError(
            checkpoint.path, f"has {config.layers} blocks, fewer than the {count} of the VACE module"
        )


FAMILY = Vace()
