"""From what is connected to a CLIP_VISION input to rows of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..wanvideo.conditioning.clip import CLIP_WIDTH, Encode, check_rows
from ..wanvideo.encoders.clip_vision import IMAGES_AT_ONCE, ClipVisionEncoder, load_clip_vision
from ..wanvideo.encoders.clip_vision_keys import ADVICE, own_clip_vision, read_config
from ..wanvideo.errors import InputError, ModelFileError
from ..wanvideo.weights.checkpoint import Checkpoint
from ..wanvideo.weights.residency import Residency
from .host import (
    ManagedModel,
    check_file,
    check_interrupt,
    evict,
    intermediate_device,
    load,
    text_encoder_device,
    text_encoder_offload_device,
)

FOLDERS = ("clip_vision", "text_encoders")  # the second is where these files lay in older installations
PRECISIONS = {"fp16": torch.float16, "fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ClipVisionOutput:
    """Value of CLIP_VISION_OUTPUT, with the names ComfyUI's nodes ask for.

    Args:
        penultimate_hidden_states: rows after the last but one block ``[B, tokens, width]``.
        last_hidden_state: rows after the last block ``[B, tokens, width]``.
        image_embeds: the embedding shared with text ``[B, projection]``; None when the file has none.
        image_sizes: channels, height and width of each picture as it was encoded.
        mm_projected: what models of another kind (LLaVA) add; always None.
    """

    penultimate_hidden_states: Tensor
    last_hidden_state: Tensor
    image_embeds: Tensor | None
    image_sizes: list[torch.Size]
    mm_projected: None = None

    def __getitem__(self, name: str) -> object:
        """The same by name."""
        return getattr(self, name)


@dataclass(frozen=True)
class WanClipVision:
    """Value of CLIP_VISION: our image encoder, in a form that ComfyUI's CLIP Vision Encode takes too.

    Args:
        managed: its weights, as ComfyUI's memory manager sees them.
        encoder: turns pictures into rows.
        name: of the file, for messages.
    """

    managed: ManagedModel
    encoder: ClipVisionEncoder
    name: str

    def rows(self, images: Tensor, *, crop: bool) -> Tensor:
        """The rows Wan reads, on the CPU; the encoder stays on its device."""
        device = self._load()
        return self.encoder.encode(images, device=device, crop=crop, check=check_interrupt)

    def encode_image(self, image: Tensor, crop: bool = True) -> ClipVisionOutput:
        """Called by ComfyUI's nodes.

        Args:
            image: ``[B, H, W, C]`` in [0, 1].
            crop: cut the middle square instead of squeezing the picture.
        """
        device = self._load()
        features = self.encoder.features(image, device=device, crop=crop, check=check_interrupt)
        side, target = self.encoder.module.config.image_size, intermediate_device()
        return ClipVisionOutput(
            penultimate_hidden_states=features.penultimate.to(target),
            last_hidden_state=features.last.to(target),
            image_embeds=None if features.projected is None else features.projected.to(target),
            image_sizes=[torch.Size((3, side, side))] * len(image),
        )

    def _load(self) -> torch.device:
        load(self.managed, memory_required=self.encoder.working_bytes)
        return self.managed.load_device


def check_clip_vision(checkpoint: Checkpoint) -> None:
    """Raise a :class:`WanError` unless the file is, by its header, an image encoder Wan models know."""
    width = read_config(own_clip_vision(checkpoint)).width
    if width != CLIP_WIDTH:
        raise ModelFileError(checkpoint.path, f"is an image encoder of width {width}. {ADVICE}")


def folder_of(name: object) -> str:
    """The model folder that has a file of this name; the usual one when none has."""
    for folder in FOLDERS:
        if check_file(folder, name, input_name="model_name") is True:
            return folder
    return FOLDERS[0]


def load_clip_vision_file(path: Path, precision: str) -> WanClipVision:
    """Open an image encoder file; its weights stay mapped until they are used."""
    checkpoint = Checkpoint.open(path)
    check_clip_vision(checkpoint)
    encoder = load_clip_vision(checkpoint, dtype=PRECISIONS[precision])
    managed = ManagedModel(
        Residency(encoder.module),
        load_device=text_encoder_device(),
        offload_device=text_encoder_offload_device(),
    )
    return WanClipVision(managed, encoder, path.name)


def encoder_of(clip_vision: object, *, crop: bool) -> Encode:
    """A function that encodes pictures with what is connected to ``clip_vision``.

    Raises:
        InputError: nothing or something else is connected; the function raises it for an encoder of another
            width.
    """
    if isinstance(clip_vision, WanClipVision):
        return lambda images: clip_vision.rows(images, crop=crop)
    encode_image = getattr(clip_vision, "encode_image", None)
    if not callable(encode_image):
        found = "nothing is" if clip_vision is None else f"{type(clip_vision).__name__} is"
        raise InputError(
            "clip_vision",
            f"{found} connected, expected an image encoder; connect WanVideo CLIP Text Encoder Loader or "
            "ComfyUI's Load CLIP Vision",
        )

    def encode(images: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for part in images.split(IMAGES_AT_ONCE):
            rows = getattr(encode_image(part, crop=crop), "penultimate_hidden_states", None)
            check_rows(rows, "clip_vision")
            parts.append(rows.float().cpu())  # pyright: ignore[reportOptionalMemberAccess]
        return torch.cat(parts)

    return encode


def offload_clip_vision(clip_vision: object) -> None:
    """Take an image encoder, ours or ComfyUI's, off its device."""
    held = clip_vision.managed if isinstance(clip_vision, WanClipVision) else None
    patcher = held or getattr(clip_vision, "patcher", None)
    if patcher is not None:
        evict(patcher)
