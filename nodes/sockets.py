"""The sockets of the pack, and what travels through them.

The names are those of the node interface this pack keeps; the values are ours. LATENT is core's
type in core's convention (un-normalised VAE space), see docs/decisions/0004-latent-convention.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..wanvideo.conditioning.geometry import VideoGeometry
from .host import io

Model = io.Custom("WANVIDEOMODEL")
ImageEmbedsSocket = io.Custom("WANVIDIMAGE_EMBEDS")
TextEmbedsSocket = io.Custom("WANVIDEOTEXTEMBEDS")
TextEncoderSocket = io.Custom("WANTEXTENCODER")
VaeSocket = io.Custom("WANVAE")
Lora = io.Custom("WANVIDLORA")
BlockSwap = io.Custom("BLOCKSWAPARGS")
VramManagement = io.Custom("VRAM_MANAGEMENTARGS")
Compile = io.Custom("WANCOMPILEARGS")
VaceModel = io.Custom("VACEPATH")
FantasyTalkingModel = io.Custom("FANTASYTALKINGMODEL")
MultiTalkModel = io.Custom("MULTITALKMODEL")
FantasyPortraitModel = io.Custom("FANTASYPORTRAITMODEL")
Cache = io.Custom("CACHEARGS")
EnhanceVideo = io.Custom("FETAARGS")
SkipLayerGuidance = io.Custom("SLGARGS")
Loop = io.Custom("LOOPARGS")
ContextWindows = io.Custom("WANVIDCONTEXT")
Experimental = io.Custom("EXPERIMENTALARGS")
FreeInit = io.Custom("FREEINITARGS")
FlowEdit = io.Custom("FLOWEDITARGS")
UniAnimatePose = io.Custom("UNIANIMATE_POSE")
FantasyTalkingEmbeds = io.Custom("FANTASYTALKING_EMBEDS")
Uni3cEmbeds = io.Custom("UNI3C_EMBEDS")
MultiTalkEmbeds = io.Custom("MULTITALK_EMBEDS")
SamplerExtra = io.Custom("WANVIDSAMPLEREXTRAARGS")
SchedulerSocket = io.Custom("WANVIDEOSCHEDULER")
SamplerSettings = io.Custom("SAMPLER_ARGS")
PromptExtender = io.Custom("WANVIDEOPROMPTEXTENDER_ARGS")


@dataclass(frozen=True)
class ImageEmbeds:
    """Value of WANVIDIMAGE_EMBEDS: the size of the video and what families added to it.

    Args:
        geometry: size in pixels, frames and latents.
        inputs: family inputs by name, frozen dataclasses owned by the families.
    """

    geometry: VideoGeometry
    inputs: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    def with_input(self, name: str, value: object) -> ImageEmbeds:
        """These embeds with one more family input."""
        return ImageEmbeds(self.geometry, MappingProxyType({**self.inputs, name: value}))


@runtime_checkable
class PreviewableInput(Protocol):
    """A family input that holds pictures."""

    def preview(self) -> tuple[Tensor, Tensor]:
        """Latent ``[1, C, T, H, W]`` in core's scale and mask ``[T, H, W]``, 1 where the model paints."""
        ...
