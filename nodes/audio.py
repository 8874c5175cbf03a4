"""Sound: loudness, and latents of sound made with the video."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import inf
from typing import Any

from torch import Tensor

from ..wanvideo.conditioning.audio import empty_ovi_audio
from ..wanvideo.encoders.loudness import normalise_loudness
from ..wanvideo.errors import InputError
from .base import CATEGORY, WanNode
from .host import io
from .notices import warn

log = logging.getLogger(__name__)

OVI_CATEGORY = f"{CATEGORY}/Ovi"
OVI_AUDIO = "latent_ovi_audio"  # where a LATENT carries the sound of Ovi


class NormalizeAudioLoudness(WanNode):
    """Sound at a wanted loudness."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="NormalizeAudioLoudness",
            display_name="Normalize Audio Loudness",
            category=CATEGORY,
            description="Makes a recording as loud as wanted, measured as broadcasters do (ITU-R BS.1770-4). "
            "Speech for talking-head models is usually brought to -23 LUFS.",
            inputs=[
                io.Audio.Input("audio", tooltip="At least 0.4 seconds."),
                io.Float.Input(
                    "lufs",
                    default=-23.0,
                    min=-100.0,
                    max=0.0,
                    step=0.1,
                    tooltip="Wanted loudness in LUFS; nearer to 0 is louder.",
                ),
            ],
            outputs=[io.Audio.Output(display_name="audio")],
        )

    @classmethod
    def run(cls, *, audio: Mapping[str, Any] | None, lufs: float) -> io.NodeOutput:
        """The recording times one factor; silence stays as it is."""
        if audio is None:
            raise InputError("audio", "there is no sound; the file it comes from may have no audio track")
        waveform: Tensor = audio["waveform"]
        result = normalise_loudness(
            waveform if waveform.ndim == 3 else waveform[None], int(audio["sample_rate"]), lufs
        )
        measured = ", ".join(f"{loudness:.1f}" for loudness in result.loudness)
        log.info("%s: %s LUFS, now %.1f", cls.shown_name(), measured, lufs)
        if -inf in result.loudness:
            warn(cls, "the audio is silent (below -70 LUFS): it stays as it is")
        elif result.peak > 1:
            warn(
                cls,
                f"at {lufs:g} LUFS the loudest sample is {result.peak:.2f}: above 1 it is clipped when saved",
            )
        return io.NodeOutput({**audio, "waveform": result.waveform})


class WanVideoEmptyMMAudioLatents(WanNode):
    """Room for the sound of an Ovi video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoEmptyMMAudioLatents",
            display_name="WanVideo Empty MMAudio Latents",
            category=OVI_CATEGORY,
            description="An empty audio latent for Ovi, which makes video and sound together.",
            inputs=[
                io.Int.Input(
                    "length",
                    default=157,
                    min=1,
                    max=10000,
                    step=1,
                    tooltip="Latent frames of sound: 31.25 per second, 157 for the 5 second models.",
                )
            ],
            outputs=[io.Latent.Output(display_name="samples")],
        )

    @classmethod
    def run(cls, *, length: int) -> io.NodeOutput:
        """A latent with sound and no picture."""
        return io.NodeOutput({OVI_AUDIO: empty_ovi_audio(length)})


class WanVideoAddOviAudioToLatents(WanNode):
    """Picture and sound in one latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoAddOviAudioToLatents",
            display_name="WanVideo Add MMAudio To Latents",
            category=OVI_CATEGORY,
            description="Puts an audio latent beside a video latent, for Ovi.",
            inputs=[
                io.Latent.Input("original_samples", tooltip="The video; sound it already has is replaced."),
                io.Latent.Input("audio_samples", tooltip="A latent with sound."),
            ],
            outputs=[io.Latent.Output(display_name="samples")],
        )

    @classmethod
    def run(cls, *, original_samples: dict[str, Any], audio_samples: dict[str, Any]) -> io.NodeOutput:
        """The video's latent with the other's sound."""
        if OVI_AUDIO not in audio_samples:
            raise InputError(
                "audio_samples", "there is no sound in this latent; connect WanVideo Empty MMAudio Latents"
            )
        return io.NodeOutput({**original_samples, OVI_AUDIO: audio_samples[OVI_AUDIO]})


NODES: list[type[WanNode]] = [
    NormalizeAudioLoudness,
    WanVideoEmptyMMAudioLatents,
    WanVideoAddOviAudioToLatents,
]
