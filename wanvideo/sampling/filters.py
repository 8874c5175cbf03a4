"""Changes to the model's predictions around classifier-free guidance.

Each is a small frozen object with up to four hooks. They are applied in the order of their ``stage``,
which is the order of WanVideoWrapper: CFG-Zero*, tangential, RAAG, FreSca, then, on the combined velocity,
temporal score rescaling. Guidance with more than two passes is not filtered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

EPSILON = 1e-8
VIDEO_DIMS = (2, 3, 4)  # frames, rows, columns of [B, C, T, H, W]


@dataclass(frozen=True)
class Pair:
    """Two predictions on their way to be combined: ``negative + scale * gain * difference``.

    Args:
        positive: velocity of the conditioned pass, ``[B, C, T, H, W]``.
        negative: velocity of the unconditioned pass.
        scale: guidance scale, a number or a tensor that broadcasts.
        gain: factor of CFG-Zero* that FreSca applies to the difference once more.
        difference: stands for ``positive - negative`` where a filter changed it.
    """

    positive: Tensor
    negative: Tensor
    scale: float | Tensor
    gain: Tensor | None = None
    difference: Tensor | None = None

    def combined(self) -> Tensor:
        """The guided velocity."""
        difference = self.positive - self.negative if self.difference is None else self.difference
        return self.negative + difference * self.scale


class Filter:
    """A filter that changes nothing; the others override what they need."""

    stage: ClassVar[int] = 0

    def skips(self, step: int) -> bool:
        """Whether the model is not asked at ``step`` and the velocity is 0."""
        del step
        return False

    def single(self, velocity: Tensor) -> Tensor:
        """Change the prediction of a step that evaluates the last pass alone."""
        return velocity

    def pair(self, pair: Pair) -> Pair:
        """Change the two predictions, or how they are combined."""
        return pair

    def rescaled(self, velocity: Tensor, x: Tensor, timestep: float) -> Tensor:
        """Change the guided velocity.

        Args:
            velocity: ``[B, C, T, H, W]``.
            x: the latent the model was shown.
            timestep: what the model was told, 0 to 1000.
        """
        del x, timestep
        return velocity


@dataclass(frozen=True)
class CFGZeroStar(Filter):
    """Scale the negative prediction to best fit the positive one (CFG-Zero*, arXiv:2503.18886)."""

    stage = 1

    def pair(self, pair: Pair) -> Pair:
        """``negative := a negative`` with ``a = <p, n> / <n, n>`` over each sample."""
        dims = tuple(range(1, pair.negative.ndim))
        product = (pair.positive * pair.negative).sum(dims, keepdim=True)
        gain = product / (pair.negative.square().sum(dims, keepdim=True) + EPSILON)
        return replace(pair, negative=pair.negative * gain, gain=gain)


@dataclass(frozen=True)
class ZeroInit(Filter):
    """A velocity of 0 for the first steps, the other half of CFG-Zero*.

    Args:
        last_step: index of the last step of the run that is zeroed.
    """

    last_step: int = 0
    stage = 2

    def skips(self, step: int) -> bool:
        """True up to :attr:`last_step`."""
        return step <= self.last_step


@dataclass(frozen=True)
class TangentialCFG(Filter):
    """Keep of the negative prediction what lies along the pair's main direction (TCFG, arXiv:2503.18137).

    The direction is the first right-singular vector of the two predictions, found per channel.
    """

    stage = 3

    def pair(self, pair: Pair) -> Pair:
        """Project the negative prediction, channel by channel."""
        positive, negative = pair.positive.float(), pair.negative.float()
        pp, nn = _channel_dot(positive, positive), _channel_dot(negative, negative)
        pn = _channel_dot(positive, negative)
        # main axis of the 2x2 Gram matrix by its angle: no SVD, and nothing cancels
        angle = torch.atan2(2.0 * pn, pp - nn) / 2.0
        cos, sin = torch.cos(angle), torch.sin(angle)
        length = cos * cos * pp + 2.0 * cos * sin * pn + sin * sin * nn
        share = (cos * pn + sin * nn) / torch.where(length > 0, length, 1.0)
        projected = share * (cos * positive + sin * negative)
        return replace(pair, negative=projected.to(pair.negative.dtype))


@dataclass(frozen=True)
class RAAG(Filter):
    """Lower the scale where the passes differ much (RAAG, arXiv:2508.03442).

    Args:
        alpha: 0 changes nothing, 1 is the paper's; above 0.
    """

    alpha: float = 1.0
    stage = 4

    def pair(self, pair: Pair) -> Pair:
        """``scale := 1 + (scale - 1) exp(-alpha r)``, r the mean over channels of ``|p - n| / |n|``."""
        difference = _channel_norm(pair.positive - pair.negative)
        ratio = difference / (_channel_norm(pair.negative) + EPSILON)
        damping = torch.exp(-self.alpha * ratio.mean(dim=1, keepdim=True))
        return replace(pair, scale=1.0 + (pair.scale - 1.0) * damping)


@dataclass(frozen=True)
class FreSca(Filter):
    """Scale low and high spatial frequencies of the guidance apart (FreSca, arXiv:2504.02154).

    Args:
        low: factor for the square of frequencies below the cut-off.
        high: factor for the rest.
        cutoff: half the side of that square, in frequency bins of the latent; more than the latent has
            means all of them.
    """

    low: float = 1.0
    high: float = 1.25
    cutoff: int = 20
    stage = 5

    def single(self, velocity: Tensor) -> Tensor:
        """Without guidance the prediction itself is filtered."""
        return self._filtered(velocity)

    def pair(self, pair: Pair) -> Pair:
        """Filter the difference of the passes."""
        difference = self._filtered(pair.positive - pair.negative)
        return replace(pair, difference=difference if pair.gain is None else difference * pair.gain)

    def _filtered(self, value: Tensor) -> Tensor:
        rows, columns = value.shape[-2:]
        factors = torch.full((rows, columns), self.high, dtype=torch.float32, device=value.device)
        factors[self._band(rows), self._band(columns)] = self.low
        fft = cast("Any", torch.fft)  # has no types
        spectrum = fft.fftn(value.float(), dim=(-2, -1)) * fft.ifftshift(factors)
        return fft.ifftn(spectrum, dim=(-2, -1)).real.to(value.dtype)

    def _band(self, size: int) -> slice:
        middle = size // 2
        return slice(max(0, middle - self.cutoff), middle + self.cutoff)


@dataclass(frozen=True)
class TemporalScoreRescaling(Filter):
    """Rescale the score by the signal-to-noise ratio (github.com/temporalscorerescaling/TSR).

    Args:
        k: below 1 sharpens, above 1 softens.
        sigma: spread of the data the rescaling assumes, above 0.
    """

    k: float = 0.95
    sigma: float = 1.0
    stage = 6

    def rescaled(self, velocity: Tensor, x: Tensor, timestep: float) -> Tensor:
        """``v' = (r ((1-t) v + x) - x) / (1 - t)``; nothing at t = 1."""
        t = timestep / 1000.0
        if t >= 1.0:
            return velocity
        ratio = self.k
        if t > 0.0:
            snr = ((1.0 - t) / t) ** 2 * self.sigma**2
            ratio = (snr + 1.0) / (snr / self.k + 1.0)
        return torch.add(velocity * ratio, x, alpha=(ratio - 1.0) / (1.0 - t))


def ordered(filters: Iterable[Filter]) -> tuple[Filter, ...]:
    """The filters in the order they are applied."""
    return tuple(sorted(filters, key=lambda each: each.stage))


def _channel_dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(VIDEO_DIMS, keepdim=True)


def _channel_norm(value: Tensor) -> Tensor:
    return value.square().sum(VIDEO_DIMS, keepdim=True).sqrt()
