"""Loudness by ITU-R BS.1770-4."""

from math import inf, pi

import pytest
import torch
from comfyui_wanvideo.wanvideo.encoders.loudness import integrated_loudness, normalise_loudness
from comfyui_wanvideo.wanvideo.errors import InputError

RATE = 16000


def noise(seconds, *, channels=1, rate=RATE, level=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(channels, round(seconds * rate), generator=generator)


def tone(seconds, frequency, *, rate=RATE, level=1.0):
    return level * torch.sin(2 * pi * frequency * torch.arange(round(seconds * rate)) / rate)[None]


def speech_like(seconds, **options):
    """Noise in bursts of very different level, so that both gates take something away."""
    waveform = noise(seconds, **options)
    level = torch.tensor([1.0, 0.01, 0.3, 0.0, 0.03, 0.6])
    return waveform * level.repeat_interleave(-(-waveform.shape[1] // len(level)))[: waveform.shape[1]]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("seconds", [0.4, 0.47, 1.0, 3.333, 11.1])
def test_loudness_is_that_of_pyloudnorm(rate, channels, seconds):
    pyloudnorm = pytest.importorskip("pyloudnorm")
    for waveform in (noise(seconds, channels=channels, rate=rate), speech_like(seconds, rate=rate, seed=1)):
        expected = pyloudnorm.Meter(rate).integrated_loudness(waveform.T.double().numpy())
        assert integrated_loudness(waveform, rate) == pytest.approx(expected, abs=1e-6)


def test_a_full_scale_tone_of_997_hz_has_the_loudness_of_the_standard():
    """-3.01 LKFS, with the table of filters for 48 kHz; filters for any sample rate differ a little."""
    assert integrated_loudness(tone(2, 997, rate=48000), 48000) == pytest.approx(-3.01, abs=0.06)


def test_low_tones_count_less_and_high_tones_more():
    low, middle, high = (integrated_loudness(tone(2, hz, rate=48000), 48000) for hz in (30, 997, 8000))
    assert low < middle - 5
    assert high > middle + 3


def test_twice_the_amplitude_is_6_lu_more():
    waveform = speech_like(3)
    difference = integrated_loudness(2 * waveform, RATE) - integrated_loudness(waveform, RATE)
    assert difference == pytest.approx(6.0206, abs=1e-3)


def test_two_equal_channels_are_3_lu_more_than_one():
    waveform = noise(2)
    both = integrated_loudness(waveform.repeat(2, 1), RATE)
    assert both - integrated_loudness(waveform, RATE) == pytest.approx(3.0103, abs=1e-4)


def test_surround_channels_weigh_one_and_a_half_db_more():
    front, surround = torch.zeros(4, RATE), torch.zeros(4, RATE)
    front[0] = surround[3] = noise(1)[0]
    difference = integrated_loudness(surround, RATE) - integrated_loudness(front, RATE)
    assert difference == pytest.approx(1.492, abs=1e-3)


def test_pauses_do_not_count():
    waveform = noise(4)
    pause = torch.zeros(1, 60 * RATE)
    with_pause = integrated_loudness(torch.cat([waveform, pause], dim=1), RATE)
    assert with_pause == pytest.approx(integrated_loudness(waveform, RATE), abs=0.2)


def test_silence_has_no_loudness():
    assert integrated_loudness(torch.zeros(2, RATE), RATE) == -inf


def test_sound_below_the_absolute_gate_is_silence():
    assert integrated_loudness(noise(1, level=1e-5), RATE) == -inf


@pytest.mark.parametrize("target", [-60.0, -23.0, -14.0, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalised_audio_has_the_wanted_loudness(target, dtype):
    result = normalise_loudness(noise(3, channels=2)[None].to(dtype), RATE, target)
    assert result.waveform.dtype == torch.float32
    assert integrated_loudness(result.waveform[0], RATE) == pytest.approx(target, abs=1e-3)


def test_normalising_is_one_factor():
    waveform = speech_like(2, channels=2)[None]
    ratio = normalise_loudness(waveform, RATE, -23.0).waveform / waveform
    assert ratio[waveform != 0].std() < 1e-6


def test_each_recording_of_a_batch_gets_its_own_factor():
    batch = torch.stack([noise(1, level=0.5), noise(1, level=0.01)])
    result = normalise_loudness(batch, RATE, -23.0)
    assert result.loudness[0] > result.loudness[1] + 30
    assert [integrated_loudness(one, RATE) for one in result.waveform] == pytest.approx([-23, -23], abs=1e-3)


def test_silence_is_left_as_it_is():
    result = normalise_loudness(torch.zeros(1, 1, RATE), RATE, -23.0)
    assert result.loudness == (-inf,)
    assert not result.waveform.any()


def test_the_input_is_not_changed():
    waveform = noise(1)[None]
    before = waveform.clone()
    normalise_loudness(waveform, RATE, -5.0)
    assert torch.equal(waveform, before)


def test_peak_is_the_largest_sample():
    result = normalise_loudness(tone(1, 997)[None], RATE, 0.0)
    assert result.peak == pytest.approx(float(result.waveform.abs().max()))
    assert result.peak > 1


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (torch.zeros(1, 1, 0), RATE, "no sound"),
        (torch.zeros(1, RATE), RATE, "no sound in it .shape .1, 16000"),
        (torch.zeros(1, 0, RATE), RATE, "no sound"),
        (torch.zeros(1, 1, 6399), RATE, "400 ms are too short"),
        (torch.zeros(1, 1, 1600), RATE, "100 ms are too short.*at least 400 ms"),
        (torch.zeros(1, 6, RATE), RATE, "6 channels; loudness is defined for 1 to 5"),
        (torch.full((1, 1, RATE), torch.nan), RATE, "not finite"),
        (torch.zeros(1, 1, RATE), 2000, "2000 Hz is too low"),
    ],
)
def test_audio_that_cannot_be_measured_is_refused(waveform, rate, message):
    with pytest.raises(InputError, match=f"^audio: .*{message}"):
        normalise_loudness(waveform, rate, -23.0)


def test_exactly_one_block_is_enough():
    assert integrated_loudness(noise(0.4), RATE) > -inf
