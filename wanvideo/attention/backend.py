"""What an attention backend is, and attention that depends on where in the video a token is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from sys import modules

import torch
from torch import Tensor

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(query [B, L, N, K], key [B, M, N, K], value [B, M, N, K]) -> [B, L, N * K]``.

The rows of ``query`` may be any part of a sequence: each row's result depends on that row and on all keys,
so a block may call it once per chunk of query rows with the same keys and values. It writes to none of them.
"""

HEAD_WIDTH = 128  # of every Wan model
HALF_PRECISION = (torch.float16, torch.bfloat16)

Supports = Callable[[torch.device, torch.dtype, int], str | None]
"""``(device, dtype, head width) -> None``, or the reason why it cannot be used there."""


def supports_everything(_device: torch.device, _dtype: torch.dtype, _head_width: int) -> str | None:
    """No restriction."""
    return None


@dataclass(frozen=True)
class AttentionBackend:
    """One way to compute attention.

    Args:
        name: as the model loader offers it.
        function: computes it; imports its library when called.
        package: Python package it needs, or ``""``.
        supports: reason why a device, dtype or head width is refused.
        tolerance: largest relative error against float32 attention that the self-test accepts.
    """

    name: str
    function: AttentionFunction
    package: str = ""
    supports: Supports = supports_everything
    tolerance: float = 0.02

    @property
    def is_installed(self) -> bool:
        """Whether its package can be imported; nothing is imported to find out."""
        return not self.package or is_installed(self.package)

    @property
    def version(self) -> str:
        """Of its package."""
        return package_version(self.package) if self.package else torch.__version__


def is_installed(package: str) -> bool:
    """Whether a top-level package can be found, without importing it."""
    return package in modules or find_spec(package) is not None


def package_version(package: str) -> str:
    """Version of an installed package, or ``unknown``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of the video are in the sequence.

    Args:
        grid: frames, rows and columns of tokens, frame after frame.
        start: sequence index of the first of them; other segments lie before and after.
    """

    grid: tuple[int, int, int]
    start: int = 0

    @property
    def frame_tokens(self) -> int:
        """Tokens of one frame."""
        return self.grid[1] * self.grid[2]

    @property
    def stop(self) -> int:
        """One past the last token of the video."""
        return self.start + self.grid[0] * self.frame_tokens


class LayoutAttention(ABC):
    """Self-attention that depends on where in the video a token is (radial, UltraViCo).

    It takes the queries of the whole sequence in one call, so a block computes them whole and does not
    cut this phase into chunks of rows. Keys may be more than queries: those beyond the sequence, and the
    tokens of other segments, see and are seen by everyone.
    """

    @abstractmethod
    def __call__(self, query: Tensor, key: Tensor, value: Tensor, layout: TokenLayout) -> Tensor:
        """``(query [B, L, N, K], key [B, M, N, K], value [B, M, N, K]) -> [B, L, N * K]``, L <= M."""


@dataclass(frozen=True)
class BoundAttention:
    """A :class:`LayoutAttention` with the layout of one forward: a function for whole sequences."""

    attention: LayoutAttention
    layout: TokenLayout

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As :data:`AttentionFunction`, with the query rows of the whole sequence."""
        return self.attention(query, key, value, self.layout)


def bind(attention: AttentionFunction | LayoutAttention, layout: TokenLayout) -> AttentionFunction:
    """A function of query, key and value alone; plain functions stay as they are."""
    return BoundAttention(attention, layout) if isinstance(attention, LayoutAttention) else attention


def needs_whole_sequence(attention: AttentionFunction) -> bool:
    """Whether all query rows must be passed in one call."""
    return isinstance(attention, BoundAttention)
