"""The sockets of the pack, and what travels through them.

The names are those of the node interface this pack keeps; the values are ours. LATENT is core's
type in core's convention (un-normalised VAE space), see docs/decisions/0004-latent-convention.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..wanvideo.conditioning.conditioning import FamilyInput
from ..wanvideo.conditioning.geometry import VideoGeometry, spatial_stride_of
from ..wanvideo.conditioning.text import TextEmbeds
from ..wanvideo.encoders.text_encoder import TextEncoder
from ..wanvideo.errors import InputError
from ..wanvideo.vae.video_vae import VideoVAE
from .host import ManagedModel, io

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
ClipEmbedsSocket = io.Custom("WANVIDIMAGE_CLIPEMBEDS")
CameraPoses = io.Custom("CAMERACTRL_POSES")
ControlNet = io.Custom("WANVIDEOCONTROLNET")
AddedConditions = io.Custom("ADD_COND_LATENTS")

DECODE_PLAN = "decode_plan"  # key of a LATENT: what a decoder has to know of it


@dataclass(frozen=True)
class ImageEmbeds:
    """Value of WANVIDIMAGE_EMBEDS: the size of the video and what families added to it.

    Args:
        geometry: size in pixels, frames and latents.
        inputs: family inputs by name, frozen dataclasses owned by the families; never changed in place. A
            plain dict, so that nodes which look for tensors in any value find those in it.
    """

    geometry: VideoGeometry
    inputs: Mapping[str, FamilyInput] = field(default_factory=dict[str, FamilyInput])

    def with_input(self, name: str, value: FamilyInput) -> ImageEmbeds:
        """These embeds with one more family input."""
        return ImageEmbeds(self.geometry, {**self.inputs, name: value})


@dataclass(frozen=True)
class AttachedInput:
    """A family input that goes to the sampler by a socket of its own, and the networks that serve it.

    Args:
        name: of the input.
        value: the input.
        companions: brought to their device with the model for each run.
    """

    name: str
    value: FamilyInput
    companions: tuple[ManagedModel, ...] = ()


@dataclass(frozen=True)
class WanTextEncoder:
    """Value of WANTEXTENCODER.

    Args:
        managed: its weights, as ComfyUI's memory manager sees them.
        encoder: turns prompts into rows.
        identity: what the rows depend on beside the prompt (file, precision, quantization), for caches.
    """

    managed: ManagedModel
    encoder: TextEncoder
    identity: tuple[object, ...]


@dataclass(frozen=True)
class WanVAE:
    """Value of WANVAE.

    Args:
        managed: its weights, as ComfyUI's memory manager sees them.
        vae: encodes and decodes.
        name: of the file, for messages.
    """

    managed: ManagedModel
    vae: VideoVAE
    name: str


@runtime_checkable
class PreviewableInput(Protocol):
    """A family input that holds pictures."""

    def preview(self) -> tuple[Tensor, Tensor]:
        """Latent ``[1, C, T, H, W]`` in core's scale and mask ``[T, H, W]``, 1 where the model paints."""
        ...


def as_text_embeds(value: object, *, input_name: str = "text_embeds") -> TextEmbeds:
    """Text embeds from a WANVIDEOTEXTEMBEDS socket: ours, or the dict other packs make.

    Raises:
        InputError: neither.
    """
    if isinstance(value, TextEmbeds):
        return value
    if isinstance(value, Mapping) and value.get("prompt_embeds") is not None:
        return TextEmbeds(
            prompt_embeds=_rows(value["prompt_embeds"], input_name),
            negative_prompt_embeds=_rows(value.get("negative_prompt_embeds"), input_name),
            is_echoshot=bool(value.get("echoshot", False)),
        )
    raise InputError(input_name, f"expected text embeds, got {type(value).__name__}")


def as_image_embeds(value: object, *, input_name: str = "image_embeds") -> ImageEmbeds:
    """Image embeds from a WANVIDIMAGE_EMBEDS socket: ours, or a dict of another pack that only has a size.

    Raises:
        InputError: neither, or a dict with entries this version does not read.
    """
    if isinstance(value, ImageEmbeds):
        return value
    if not isinstance(value, Mapping) or "target_shape" not in value:
        raise InputError(input_name, f"expected image embeds, got {type(value).__name__}")
    unread = [name for name, entry in value.items() if name not in _SIZE_ENTRIES and entry is not None]
    if unread:
        raise InputError(
            input_name,
            f"these embeds come from another pack, and {', '.join(map(str, unread))} in them cannot be read; "
            "use the node of this pack",
        )
    channels, frames, height, width = (int(size) for size in value["target_shape"])
    stride = spatial_stride_of(channels)
    geometry = VideoGeometry(width * stride, height * stride, (frames - 1) * 4 + 1, stride)
    return ImageEmbeds(geometry)


_SIZE_ENTRIES = ("target_shape", "num_frames")


def _rows(value: object, input_name: str) -> tuple[Tensor, ...]:
    """One or several ``[L, width]`` or ``[1, L, width]`` tensors."""
    if value is None:
        return ()
    rows: list[Tensor] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        one = item[0] if isinstance(item, Tensor) and item.ndim == 3 else item
        if not isinstance(one, Tensor) or one.ndim != 2:
            raise InputError(input_name, "expected one tensor [tokens, width] per prompt")
        rows.append(one)
    return tuple(rows)
