"""Released models by their sizes, and the settings their authors use (configs/known_checkpoints.json)."""

import json
from collections.abc import Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..transformer.config import WanConfig

KNOWN_CHECKPOINTS = Path(__file__).resolve().parents[2] / "configs" / "known_checkpoints.json"


@dataclass(frozen=True)
class Defaults:
    """Settings of the official configuration of a model.

    Args:
        steps: sampling steps.
        shift: of the flow schedule.
        cfg: guidance scale; of the high noise expert where there are two.
        frames: pixel frames.
        frames_per_second: of the training videos.
        width: pixels.
        height: pixels.
        cfg_low_noise: guidance scale of the low noise expert.
        expert_boundary: the low noise expert takes over below this sigma, 0 to 1.
    """

    steps: int
    shift: float
    cfg: float
    frames: int
    frames_per_second: int
    width: int
    height: int
    cfg_low_noise: float | None = None
    expert_boundary: float | None = None


@dataclass(frozen=True)
class Variant:
    """One released model.

    Args:
        name: as messages say it.
        dim: width of the token stream.
        layers: transformer blocks.
        in_channels: latent channels entering the patch embedding, conditions included.
        out_channels: latent channels of the prediction.
        capabilities: what is in its file beyond "text" (names of `weights.capabilities`).
        defaults: its authors' settings; None where they are not known.
    """

    name: str
    dim: int
    layers: int
    in_channels: int
    out_channels: int
    capabilities: frozenset[str]
    defaults: Defaults | None


@cache
def known_variants() -> tuple[Variant, ...]:
    """All rows of the table."""
    rows = json.loads(KNOWN_CHECKPOINTS.read_text("utf-8"))["models"]
    return tuple(
        Variant(
            **{
                **row,
                "capabilities": frozenset(row["capabilities"]),
                "defaults": Defaults(**row["defaults"]) if row["defaults"] else None,
            }
        )
        for row in rows
    )


def variants_of(sizes: WanConfig, capabilities: Set[str]) -> tuple[Variant, ...]:
    """The released models a file may be: none, one, or several that shapes cannot tell apart.

    Among rows of the same sizes those win that explain most of the file's capabilities.
    """
    wanted = (sizes.dim, sizes.layers, sizes.in_channels, sizes.out_channels)
    fitting = [
        variant
        for variant in known_variants()
        if (variant.dim, variant.layers, variant.in_channels, variant.out_channels) == wanted
        and variant.capabilities <= capabilities
    ]
    most = max((len(variant.capabilities) for variant in fitting), default=0)
    return tuple(variant for variant in fitting if len(variant.capabilities) == most)
