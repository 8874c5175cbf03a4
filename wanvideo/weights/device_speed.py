"""How fast a device computes and is fed: estimates, used only to say what streaming is expected to cost."""

from __future__ import annotations

from dataclasses import dataclass

from ..transformer.config import WanConfig

GIGA = 1e9
TERA = 1e12
PAGEABLE_RATE = 6 * GIGA  # bytes per second from memory that is not pinned, the slower end of what is seen
LINEAR_EFFICIENCY = 0.70  # share of the peak that large bf16 matrix products reach
ATTENTION_EFFICIENCY = 0.60


@dataclass(frozen=True)
class DeviceSpeed:
    """Peak rates of a device.

    Args:
        flops: dense bf16 (or fp16) operations per second.
        copy_rate: bytes per second from pinned host memory.
    """

    flops: float
    copy_rate: float


# The fastest common card of each CUDA compute capability, with its usual link (PCIe 3, 4, 5: 12.5, 25, 50).
SPEEDS = {
    (7, 0): DeviceSpeed(112 * TERA, 12.5 * GIGA),
    (7, 5): DeviceSpeed(54 * TERA, 12.5 * GIGA),
    (8, 0): DeviceSpeed(312 * TERA, 25 * GIGA),
    (8, 6): DeviceSpeed(71 * TERA, 25 * GIGA),
    (8, 9): DeviceSpeed(165 * TERA, 25 * GIGA),
    (9, 0): DeviceSpeed(989 * TERA, 50 * GIGA),
    (10, 0): DeviceSpeed(2250 * TERA, 50 * GIGA),
    (12, 0): DeviceSpeed(210 * TERA, 50 * GIGA),
}
# Computes faster and is fed slower than any: the expected stall is too high rather than too low.
UNKNOWN_SPEED = DeviceSpeed(2250 * TERA, PAGEABLE_RATE)


def device_speed(capability: tuple[int, int] | None, *, pinned: bool = True) -> DeviceSpeed:
    """Rates of a device.

    Args:
        capability: CUDA compute capability; ``None`` where there is none.
        pinned: whether the weights wait in pinned memory.
    """
    speed = SPEEDS.get(capability, UNKNOWN_SPEED) if capability is not None else UNKNOWN_SPEED
    return speed if pinned else DeviceSpeed(speed.flops, min(speed.copy_rate, PAGEABLE_RATE))


def block_seconds(config: WanConfig, tokens: int, speed: DeviceSpeed) -> float:
    """Seconds one Wan block computes for ``tokens`` tokens (of all videos computed together)."""
    dim, ffn_dim, text_tokens = config.dim, config.ffn_dim, config.text_length
    linear = 2 * tokens * (6 * dim * dim + 2 * dim * ffn_dim) + 2 * text_tokens * 2 * dim * dim
    attention = 4 * tokens * dim * (tokens + text_tokens)
    return (linear / LINEAR_EFFICIENCY + attention / ATTENTION_EFFICIENCY) / speed.flops
