"""Random values of sane size for named weights.

Each tensor has a generator of its own, seeded by (seed, file, key): neither the order of the keys nor the
other files change it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Scale = tuple[float, float]  # mean, standard deviation

_NORM: Scale = (1.0, 0.05)


def _fan_in(shape: tuple[int, ...]) -> Scale:
    return 0.0, math.prod(shape[1:]) ** -0.5


def _weight(shape: tuple[int, ...]) -> Scale:
    return _fan_in(shape) if len(shape) > 1 else _NORM  # a norm inside a Sequential has a number for a name


def _fan_in_transposed(shape: tuple[int, ...]) -> Scale:
    return 0.0, shape[0] ** -0.5


def _t5_query(shape: tuple[int, ...]) -> Scale:
    # T5 does not divide by sqrt(head width 64): its queries are trained smaller.
    return 0.0, (64 * shape[1]) ** -0.5


def _modulation(shape: tuple[int, ...]) -> Scale:
    return 0.0, shape[-1] ** -0.5


def _constant(mean: float, deviation: float) -> Callable[[tuple[int, ...]], Scale]:
    return lambda _shape: (mean, deviation)


# The first pattern that fits the end of a key decides; keys are official names.
_RULES: tuple[tuple[str, Callable[[tuple[int, ...]], Scale]], ...] = (
    (r"gamma", _constant(*_NORM)),
    (r"norm\w*\.weight", _constant(*_NORM)),
    (r"bias", _constant(0.0, 0.02)),
    (r"modulation", _modulation),
    (r"token_embedding\.weight", _constant(0.0, 1.0)),
    (r"pos_embedding\.embedding\.weight", _constant(0.0, 0.3)),
    (r"^blocks\.\d+\.attn\.q\.weight", _t5_query),
    (r"(cls|pos)_embedding", _constant(0.0, 0.3)),
    (r"emb_pos", _constant(0.0, 0.5)),
    (r"log_scale", _constant(math.log(1 / 0.07), 0.0)),
    (r"^visual\.head", _fan_in_transposed),
    (r"weight", _weight),
)


def tensor(key: str, shape: tuple[int, ...], *, file: str, seed: int) -> Tensor:
    """Float32 values for one weight."""
    mean, deviation = next(scale(shape) for pattern, scale in _RULES if re.search(f"(?:{pattern})$", key))
    digest = hashlib.sha256(repr((seed, file, key)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(shape, generator=generator).mul_(deviation).add_(mean)


def tensors(
    shapes: Mapping[str, tuple[int, ...]], *, file: str, seed: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Values for all weights of a file, drawn in float32 and rounded to `dtype`."""
    return {key: tensor(key, shape, file=file, seed=seed).to(dtype) for key, shape in shapes.items()}
