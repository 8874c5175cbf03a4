"""Nodes for sound."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.encoders.loudness import integrated_loudness

RATE = 16000


@pytest.fixture
def audio(node_module):
    return node_module("audio")


def sound(level=0.1, shape=(1, 2, RATE), **more):
    return {"waveform": level * torch.randn(shape), "sample_rate": RATE, **more}


def normalise(audio, value, lufs=-23.0):
    return audio.NormalizeAudioLoudness.execute(audio=value, lufs=lufs)[0]


@pytest.mark.parametrize("lufs", [-40.0, -23.0, -14.5])
def test_sound_gets_the_wanted_loudness(audio, lufs):
    result = normalise(audio, sound(), lufs)
    assert integrated_loudness(result["waveform"][0], RATE) == pytest.approx(lufs, abs=1e-3)


def test_sample_rate_and_shape_are_kept(audio):
    result = normalise(audio, sound(shape=(2, 1, RATE)))
    assert result["sample_rate"] == RATE
    assert result["waveform"].shape == (2, 1, RATE)


def test_a_waveform_without_batch_gets_one(audio):
    assert normalise(audio, sound(shape=(2, RATE)))["waveform"].shape == (1, 2, RATE)


def test_silence_stays_and_is_said(audio, caplog):
    assert not normalise(audio, sound(level=0))["waveform"].any()
    assert "Normalize Audio Loudness: the audio is silent" in caplog.text


def test_clipping_is_said(audio, caplog):
    normalise(audio, sound(), -1.0)
    assert "above 1 it is clipped when saved" in caplog.text


def test_usual_loudness_says_nothing(audio, caplog):
    normalise(audio, sound())
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "there is no sound"),
        (sound(shape=(1, 1, 0)), "there is no sound in it"),
        (sound(shape=(1, 1, 100)), "6 ms are too short"),
    ],
)
def test_sound_that_cannot_be_measured_is_an_error(audio, value, message):
    with pytest.raises(Exception, match=f"^Normalize Audio Loudness: audio: {message}"):
        normalise(audio, value)


def test_an_empty_audio_latent_has_the_wanted_length(audio):
    latent = audio.WanVideoEmptyMMAudioLatents.execute(length=157)[0]
    assert torch.equal(latent["latent_ovi_audio"], torch.zeros(157, 20))


def test_sound_joins_the_video(audio):
    video = {"samples": torch.rand(1, 48, 3, 4, 4), "latent_ovi_audio": torch.zeros(1, 20)}
    other = {"samples": torch.rand(1, 48, 1, 4, 4), "latent_ovi_audio": torch.rand(9, 20)}
    joined = audio.WanVideoAddOviAudioToLatents.execute(original_samples=video, audio_samples=other)[0]
    assert joined["samples"] is video["samples"]
    assert joined["latent_ovi_audio"] is other["latent_ovi_audio"]
    assert len(video["latent_ovi_audio"]) == 1


def test_a_latent_without_sound_cannot_be_joined(audio):
    with pytest.raises(
        Exception, match=r"^WanVideo Add MMAudio To Latents: audio_samples: there is no sound"
    ):
        audio.WanVideoAddOviAudioToLatents.execute(original_samples={}, audio_samples={"samples": 0})
