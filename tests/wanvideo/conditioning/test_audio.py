"""Audio latents."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.audio import OVI_AUDIO_RATE, empty_ovi_audio


@pytest.mark.parametrize("length", [1, 157])
def test_empty_audio_is_zeros_of_20_channels(length):
    assert torch.equal(empty_ovi_audio(length), torch.zeros(length, 20))


def test_the_default_length_is_five_seconds():
    assert 5 <= 157 / OVI_AUDIO_RATE < 5.1
