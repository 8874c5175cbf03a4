"""Cutting a frame into overlapping tiles, and putting the results together without a seam.

All sizes a user sees are pixels; x is width and y is height. Inside, tiles are counted in latents, so that
the same plan serves both directions.

A tile's margin sees the tile's border instead of the picture, so its values are wrong there. Neighbours
are joined in the middle of their overlap, where both are best: with a hard cut when the overlap holds the
margins of both, since then both have exactly the values of the whole frame; else with a ramp.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import InputError

logger = logging.getLogger(__name__)

SMALLEST_TILE = 16  # latents; below this the overlap eats the tile
# Of the overlap, where it is too short for an exact result. A wider ramp takes in more of the wrong values
# near the borders: at the nodes' default sizes the largest error with a ramp over the whole overlap is 26
# times (Wan 2.1) and 2 times (Wan 2.2) the one with this.
RAMP_SHARE = 0.25


@dataclass(frozen=True)
class Tiling:
    """Size of the tiles and distance from one to the next, in pixels.

    Raises:
        InputError: a size is not positive, or a stride leaves gaps between the tiles.
    """

    tile_x: int = 272
    tile_y: int = 272
    tile_stride_x: int = 144
    tile_stride_y: int = 128

    def __post_init__(self) -> None:
        for axis, tile, stride in (
            ("x", self.tile_x, self.tile_stride_x),
            ("y", self.tile_y, self.tile_stride_y),
        ):
            if stride < 1:
                raise InputError(f"tile_stride_{axis}", f"{stride} is not positive")
            if stride > tile:
                raise InputError(
                    f"tile_stride_{axis}",
                    f"{stride} leaves gaps between tiles of {tile}; use at most tile_{axis}",
                )


@dataclass(frozen=True)
class Joint:
    """Where two neighbours are joined along one axis, in latents."""

    start: float
    stop: float

    def share_of_later(self, positions: Tensor) -> Tensor:
        """How much of the later tile to take at positions in latents, 0 to 1."""
        if self.start == self.stop:
            return (positions >= self.start).to(positions.dtype)
        return ((positions - self.start) / (self.stop - self.start)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in latents, and how it is joined to its neighbours."""

    start: int
    stop: int
    before: Joint | None = None
    after: Joint | None = None

    def weights(self, scale: int) -> Tensor:
        """The tile's share of each position, fp32 ``[(stop - start) * scale]``; all tiles sum to 1."""
        positions = (torch.arange((self.stop - self.start) * scale) + 0.5) / scale + self.start
        weights = torch.ones_like(positions)
        if self.before is not None:
            weights *= self.before.share_of_later(positions)
        if self.after is not None:
            weights *= 1.0 - self.after.share_of_later(positions)
        return weights


@dataclass(frozen=True)
class Tile:
    """A rectangle of latents."""

    rows: Span
    columns: Span

    @property
    def is_whole(self) -> bool:
        """Whether there is no other tile."""
        return not any((self.rows.before, self.rows.after, self.columns.before, self.columns.after))

    def of(self, x: Tensor, *, scale: int = 1) -> Tensor:
        """The tile's part of ``[..., H, W]``, a view; ``scale`` is the positions of x per latent."""
        rows, columns = self.rows, self.columns
        return x[..., rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]

    def put(self, part: Tensor, into: Tensor, *, scale: int = 1) -> None:
        """Add the tile's share of ``[B, C, h, w]`` to ``into``: fp32, on the CPU, zero at first."""
        if self.is_whole:
            into.copy_(part)
            return
        rows, columns = self.rows.weights(scale), self.columns.weights(scale)
        # What has no weight is not copied; only margins have none, so the rest is one rectangle.
        (row_start, row_stop), (column_start, column_stop) = _support(rows), _support(columns)
        used = part[..., row_start:row_stop, column_start:column_stop].to("cpu", torch.float32)
        weights = rows[row_start:row_stop, None] * columns[column_start:column_stop]
        target = self.of(into, scale=scale)[..., row_start:row_stop, column_start:column_stop]
        target.add_(used * weights)


def _support(weights: Tensor) -> tuple[int, int]:
    positions = weights.nonzero()
    return int(positions[0]), int(positions[-1]) + 1


@dataclass(frozen=True)
class LatentGrid:
    """A frame as tiles are cut from it.

    Args:
        rows: of the frame, in latents.
        columns: of the frame, in latents.
        stride: pixels per latent.
        margin: latents at a tile's border whose values are not exact.
    """

    rows: int
    columns: int
    stride: int
    margin: int

    def tiles(self, tiling: Tiling | None) -> list[Tile]:
        """The tiles that cover the frame; None is one tile."""
        if tiling is None:
            return [Tile(Span(0, self.rows), Span(0, self.columns))]
        rows = self._spans(self.rows, tiling.tile_y, tiling.tile_stride_y)
        columns = self._spans(self.columns, tiling.tile_x, tiling.tile_stride_x)
        return [Tile(row, column) for row in rows for column in columns]

    def smaller(self, tiling: Tiling | None) -> Tiling | None:
        """Tiles of half the longer side, overlapping as exactness asks if that fits; None at the end."""
        rows, columns = self.rows, self.columns
        if tiling is not None:
            rows, columns = (
                min(rows, tiling.tile_y // self.stride),
                min(columns, tiling.tile_x // self.stride),
            )
        longer = max(rows, columns)
        if longer <= SMALLEST_TILE:
            return None
        tile = max(SMALLEST_TILE, math.ceil(longer / 2))
        step = tile - min(2 * self.margin, tile // 2)
        return Tiling(tile * self.stride, tile * self.stride, step * self.stride, step * self.stride)

    def _spans(self, length: int, tile: int, step: int) -> list[Span]:
        return plan_spans(
            length, max(1, tile // self.stride), max(1, step // self.stride), margin=self.margin
        )


def plan_spans(length: int, tile: int, stride: int, *, margin: int) -> list[Span]:
    """Tiles along one axis: as few as the sizes allow, equally long, with at least the asked overlap.

    Args:
        length: of the axis, in latents.
        tile: the longest a tile may be.
        stride: the farthest from one tile's start to the next.
        margin: positions at a tile's border whose values are not exact.
    """
    if tile >= length:
        return [Span(0, length)]
    count = math.ceil((length - tile) / stride) + 1
    overlap = tile - stride
    tile = math.ceil((length + (count - 1) * overlap) / count)
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)]
    joints = [_joint(later, earlier + tile, tile, margin) for earlier, later in pairwise(starts)]
    befores, afters = [None, *joints], [*joints, None]
    return [
        Span(start, start + tile, before, after)
        for start, before, after in zip(starts, befores, afters, strict=True)
    ]


def _joint(overlap_start: int, overlap_stop: int, tile: int, margin: int) -> Joint:
    middle = (overlap_start + overlap_stop) / 2
    overlap = overlap_stop - overlap_start
    if overlap >= 2 * margin:
        return Joint(middle, middle)
    half = min(overlap * RAMP_SHARE / 2, (tile - overlap) / 2)
    return Joint(middle - half, middle + half)


def retry_in_smaller_tiles(
    run: Callable[[list[Tile]], Tensor],
    tiling: Tiling | None,
    grid: LatentGrid,
    *,
    device: torch.device,
    is_out_of_memory: Callable[[BaseException], bool],
) -> Tensor:
    """Run in the given tiles; when memory runs out, say so and run again in smaller ones.

    Args:
        run: does the work from the start and holds nothing when it fails.
        tiling: to begin with; None for the whole frame.
        grid: the frame.
        device: whose cached memory is given back between two tries.
        is_out_of_memory: says yes to errors that mean it besides ``torch.OutOfMemoryError``.

    Raises:
        torch.OutOfMemoryError: or whatever said it, when the smallest tiles do not fit either.
    """
    while True:
        try:
            return run(grid.tiles(tiling))
        except (RuntimeError, MemoryError) as error:
            is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or is_out_of_memory(error)
            next_tiling = grid.smaller(tiling) if is_memory else None
            if next_tiling is None:
                raise
            logger.warning(
                "out of memory in %s; trying again in %s", described(tiling), described(next_tiling)
            )
        # Outside the except block: the error, and with it every tensor of the failed try, is gone here.
        tiling = next_tiling
        empty_cache = getattr(torch.get_device_module(device), "empty_cache", None)
        if empty_cache is not None:
            empty_cache()


def described(tiling: Tiling | None) -> str:
    """The tiling for a log line."""
    return "one piece" if tiling is None else f"tiles of {tiling.tile_x}x{tiling.tile_y} px"
