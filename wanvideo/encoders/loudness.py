"""Integrated loudness of a recording, and audio brought to a wanted one.

ITU-R BS.1770-4: audio is weighted as the ear hears it, and its power averaged over blocks of 400 ms that
are neither silent nor 10 LU below the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, floor, inf, log10, pi, sin, sqrt

import torch
from torch import Tensor

from ..errors import InputError

BLOCK_SECONDS = 0.4
OVERLAP = 0.75  # of neighbouring blocks
OFFSET = -0.691  # LUFS of a weighted signal of power 1
SILENCE = -70.0  # LUFS; blocks below are left out
RELATIVE_GATE = -10.0  # LU below the mean of the blocks that are not silent; blocks below are left out
CHANNEL_WEIGHTS = (1.0, 1.0, 1.0, 1.41, 1.41)  # left, right, centre, left surround, right surround
SHELF_HZ, SHELF_DB, SHELF_Q = 1500.0, 4.0, 1 / sqrt(2)
HIGH_PASS_HZ, HIGH_PASS_Q = 38.0, 0.5


@dataclass(frozen=True)
class Biquad:
    """A second-order filter: coefficients of ``z^0, z^-1, z^-2``, divided by the denominator's first.

    The designs are those of R. Bristow-Johnson's "Cookbook formulae for audio equalizer biquad filter
    coefficients".
    """

    numerator: tuple[float, float, float]
    denominator: tuple[float, float, float]

    @classmethod
    def high_shelf(cls, frequency: float, sample_rate: int, *, gain_db: float, q: float) -> Biquad:
        """Raises what lies above ``frequency`` (Hz)."""
        gain = 10 ** (gain_db / 40)
        cosine, alpha = _angle(frequency, sample_rate, q)
        slope = 2 * sqrt(gain) * alpha
        more, less = gain + 1, gain - 1
        return cls._scaled(
            (
                gain * (more + less * cosine + slope),
                -2 * gain * (less + more * cosine),
                gain * (more + less * cosine - slope),
            ),
            (more - less * cosine + slope, 2 * (less - more * cosine), more - less * cosine - slope),
        )

    @classmethod
    def high_pass(cls, frequency: float, sample_rate: int, *, q: float) -> Biquad:
        """Takes away what lies below ``frequency`` (Hz)."""
        cosine, alpha = _angle(frequency, sample_rate, q)
        half = (1 + cosine) / 2
        return cls._scaled((half, -2 * half, half), (1 + alpha, -2 * cosine, 1 - alpha))

    @classmethod
    def _scaled(
        cls, numerator: tuple[float, float, float], denominator: tuple[float, float, float]
    ) -> Biquad:
        first = denominator[0]
        (b0, b1, b2), (_, a1, a2) = numerator, denominator
        return cls((b0 / first, b1 / first, b2 / first), (1.0, a1 / first, a2 / first))


@dataclass(frozen=True)
class Normalised:
    """Audio at a wanted loudness.

    Args:
        waveform: float32 ``[B, C, N]``.
        loudness: of each recording before, in LUFS; ``-inf`` for silence, which is left as it is.
        peak: largest absolute sample; above 1 it will be clipped when saved.
    """

    waveform: Tensor
    loudness: tuple[float, ...]
    peak: float


def integrated_loudness(waveform: Tensor, sample_rate: int) -> float:
    """Loudness of one recording.

    Args:
        waveform: ``[C, N]``, full scale is 1; at most five channels in the order left, right, centre,
            left surround, right surround.
        sample_rate: samples per second.

    Returns:
        LUFS, ``-inf`` when no block is louder than -70 LUFS.

    Raises:
        InputError: too short for one block, too many channels, not finite, or a sample rate too low
            for the weighting filter.

    Source: ITU-R BS.1770-4; the weighting filters are designed for any sample rate as pyloudnorm does.
    """
    _check(waveform, sample_rate)
    power = _block_power(_weighted(waveform, sample_rate), sample_rate)
    weights = torch.tensor(CHANNEL_WEIGHTS[: waveform.shape[0]], dtype=torch.float64)
    power = (weights[:, None] * power).sum(dim=0)
    loudness = OFFSET + 10 * power.log10()
    audible = loudness >= SILENCE
    if not audible.any():
        return -inf
    gate = _lufs(power[audible]) + RELATIVE_GATE
    return _lufs(power[audible & (loudness > gate)])


def normalise_loudness(waveform: Tensor, sample_rate: int, target: float) -> Normalised:
    """Bring every recording of a batch to ``target`` LUFS.

    Args:
        waveform: ``[B, C, N]``; each recording gets a gain of its own.
        sample_rate: samples per second.
        target: LUFS.

    Raises:
        InputError: see :func:`integrated_loudness`.
    """
    if waveform.ndim != 3 or not waveform.numel():
        raise InputError("audio", f"there is no sound in it (shape {tuple(waveform.shape)})")
    loudness = tuple(integrated_loudness(recording, sample_rate) for recording in waveform)
    gains = [1.0 if before == -inf else 10 ** ((target - before) / 20) for before in loudness]
    scaled = waveform.float().cpu() * torch.tensor(gains, dtype=torch.float32)[:, None, None]
    return Normalised(scaled, loudness, float(scaled.abs().max()))


def _check(waveform: Tensor, sample_rate: int) -> None:
    channels, samples = waveform.shape
    if not 1 <= channels <= len(CHANNEL_WEIGHTS):
        raise InputError("audio", f"{channels} channels; loudness is defined for 1 to {len(CHANNEL_WEIGHTS)}")
    if sample_rate <= 2 * SHELF_HZ:
        raise InputError("audio", f"a sample rate of {sample_rate} Hz is too low to measure loudness")
    if samples < BLOCK_SECONDS * sample_rate:
        raise InputError(
            "audio",
            f"{1000 * samples / sample_rate:.0f} ms are too short to measure loudness; at least "
            f"{1000 * BLOCK_SECONDS:.0f} ms are needed",
        )
    if not waveform.isfinite().all():
        raise InputError("audio", "the waveform has values that are not finite (NaN or infinite)")


def _angle(frequency: float, sample_rate: int, q: float) -> tuple[float, float]:
    """Cosine of the frequency on the unit circle, and half the bandwidth there."""
    angle = 2 * pi * frequency / sample_rate
    return cos(angle), sin(angle) / (2 * q)


def _weighted(waveform: Tensor, sample_rate: int) -> Tensor:
    """K-weighting: the head's shadow as a shelf, then a high pass; float64 ``[C, N]``."""
    from scipy.signal import lfilter

    samples = waveform.detach().double().cpu().numpy()
    for stage in (
        Biquad.high_shelf(SHELF_HZ, sample_rate, gain_db=SHELF_DB, q=SHELF_Q),
        Biquad.high_pass(HIGH_PASS_HZ, sample_rate, q=HIGH_PASS_Q),
    ):
        samples = lfilter(stage.numerator, stage.denominator, samples, axis=-1)
    return torch.from_numpy(samples)


def _block_power(weighted: Tensor, sample_rate: int) -> Tensor:
    """Mean square of every block, ``[C, blocks]``; the last block may be a rounding error short."""
    step = 1 - OVERLAP
    seconds = weighted.shape[1] / sample_rate
    count = round((seconds - BLOCK_SECONDS) / (BLOCK_SECONDS * step)) + 1
    first = [floor(BLOCK_SECONDS * (block * step) * sample_rate) for block in range(count)]
    end = [floor(BLOCK_SECONDS * (block * step + 1) * sample_rate) for block in range(count)]
    sums = torch.nn.functional.pad(weighted.square().cumsum(dim=1), (1, 0))
    ends = torch.tensor(end).clamp(max=weighted.shape[1])
    return (sums[:, ends] - sums[:, torch.tensor(first)]) / (BLOCK_SECONDS * sample_rate)


def _lufs(power: Tensor) -> float:
    mean = float(power.mean()) if power.numel() else 0.0
    return OFFSET + 10 * log10(mean) if mean > 0 else -inf
