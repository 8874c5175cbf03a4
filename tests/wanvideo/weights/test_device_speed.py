"""Estimates of compute and copy time, against figures known for Wan 14B in bf16."""

import pytest
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.weights.device_speed import SPEEDS, UNKNOWN_SPEED, block_seconds, device_speed

WAN_14B = WanConfig(dim=5120, ffn_dim=13824, heads=40, layers=40, in_channels=16, out_channels=16)
BLOCK_BYTES = 2 * (8 * 5120 * 5120 + 2 * 5120 * 13824)


@pytest.mark.parametrize(
    ("capability", "tokens", "milliseconds"),
    [
        ((8, 6), 32_760, 919),
        ((8, 6), 75_600, 3677),
        ((8, 9), 32_760, 395),
        ((8, 9), 75_600, 1582),
        ((8, 0), 32_760, 209),
        ((8, 0), 75_600, 837),
        ((9, 0), 32_760, 66),
        ((9, 0), 75_600, 264),
        ((12, 0), 32_760, 311),
        ((12, 0), 75_600, 1243),
    ],
)
def test_a_block_of_14b_computes_as_long_as_known_within_5_percent(capability, tokens, milliseconds):
    speed = device_speed(capability)
    seconds = block_seconds(WAN_14B, tokens, speed)
    assert seconds * 1000 == pytest.approx(milliseconds, rel=0.05)


@pytest.mark.parametrize(("capability", "milliseconds"), [((8, 9), 28), ((12, 0), 14)])
def test_a_block_of_14b_is_copied_in_the_known_time(capability, milliseconds):
    assert BLOCK_BYTES / device_speed(capability).copy_rate * 1000 == pytest.approx(milliseconds, rel=0.05)


@pytest.mark.parametrize("capability", [None, (99, 0)])
def test_an_unknown_device_is_taken_for_the_worst(capability):
    speed = device_speed(capability)
    assert speed == UNKNOWN_SPEED
    assert speed.flops >= max(known.flops for known in SPEEDS.values())
    assert speed.copy_rate <= min(known.copy_rate for known in SPEEDS.values())


def test_memory_that_is_not_pinned_is_copied_slower():
    assert device_speed((9, 0), pinned=False).copy_rate < device_speed((9, 0)).copy_rate
