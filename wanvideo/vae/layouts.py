"""Which VAE a file holds, and its keys under their official names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from ..weights.checkpoint import Checkpoint
from ..weights.keys import find_prefix

_OFFICIAL_LANDMARK = "decoder.middle.0.residual.0.gamma"
_DIFFUSERS_LANDMARK = "decoder.mid_block.resnets.0.norm1.gamma"
_TINY_LANDMARK = "decoder.22.bias"

_IN_A_BLOCK = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}
_OUTSIDE_BLOCKS = {
    "quant_conv": "conv1",
    "post_quant_conv": "conv2",
    "encoder.conv_in": "encoder.conv1",
    "decoder.conv_in": "decoder.conv1",
    "encoder.norm_out": "encoder.head.0",
    "decoder.norm_out": "decoder.head.0",
    "encoder.conv_out": "encoder.head.2",
    "decoder.conv_out": "decoder.head.2",
}
_BLOCKS_PER_UP_LEVEL = 3
_BLOCKS_PER_DOWN_LEVEL = 2
_PLACE = re.compile(
    r"(?P<half>encoder|decoder)\.(?:mid_block|(?:down|up)_blocks\.(?P<level>\d+))"
    r"(?:\.(?P<kind>resnets|attentions|upsamplers|upsampler|downsampler)(?:\.(?P<index>\d+))?)?\.(?P<rest>.+)"
)


@dataclass(frozen=True)
class VaeFile:
    """A file with a VAE in it.

    Args:
        checkpoint: under official names, without prefix and without the other parts of the file.
        is_tiny: a TAEHV instead of a Wan VAE.
    """

    checkpoint: Checkpoint
    is_tiny: bool


def read_layout(checkpoint: Checkpoint) -> VaeFile | None:
    """The VAE of a file, by key names; None when there is none."""
    keys = checkpoint.keys()
    for landmark in (_OFFICIAL_LANDMARK, _DIFFUSERS_LANDMARK, _TINY_LANDMARK):
        prefix = find_prefix(keys, (landmark,))
        if prefix is None:
            continue
        bare = checkpoint.renamed(lambda key, prefix=prefix: _without(key, prefix)) if prefix else checkpoint
        if landmark == _DIFFUSERS_LANDMARK:
            has_levels = any(".downsampler." in key for key in bare)
            bare = bare.renamed(partial(official_name, has_levels=has_levels))
        return VaeFile(bare, is_tiny=landmark == _TINY_LANDMARK)
    return None


def official_name(key: str, *, has_levels: bool) -> str:
    """A key of diffusers' ``AutoencoderKLWan`` under its official name; unknown keys stay.

    Args:
        key: of a parameter.
        has_levels: the file is a Wan 2.2 VAE, which has levels in both layouts. The 2.1 VAE counts blocks and
            resamplings in one row; diffusers groups them on the way up.
    """
    module, _, parameter = key.rpartition(".")
    if module in _OUTSIDE_BLOCKS:
        return f"{_OUTSIDE_BLOCKS[module]}.{parameter}"
    match = _PLACE.fullmatch(module)
    if match is None:
        return key
    half, level, kind, index, rest = match.group("half", "level", "kind", "index", "rest")
    if level is None:  # the middle
        place = "middle.1" if kind == "attentions" else f"middle.{2 * int(index)}"
    elif half == "encoder":
        in_level = index if kind == "resnets" else _BLOCKS_PER_DOWN_LEVEL
        place = f"downsamples.{level}" + (f".downsamples.{in_level}" if kind else "")
    else:
        in_level = int(index) if kind == "resnets" else _BLOCKS_PER_UP_LEVEL
        in_row = int(level) * (_BLOCKS_PER_UP_LEVEL + 1) + in_level
        place = f"upsamples.{level}.upsamples.{in_level}" if has_levels else f"upsamples.{in_row}"
    return f"{half}.{place}.{_IN_A_BLOCK.get(rest, rest)}.{parameter}"


def _without(key: str, prefix: str) -> str | None:
    return key[len(prefix) :] if key.startswith(prefix) else None
