"""From what is connected to a text node to encoded prompts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..wanvideo.conditioning.prompts import clean_prompt, split_prompts
from ..wanvideo.conditioning.text import TextEmbeds
from ..wanvideo.encoders.text_encoder import load_umt5
from ..wanvideo.encoders.umt5_keys import official_umt5, read_config
from ..wanvideo.errors import InputError
from ..wanvideo.weights.checkpoint import Checkpoint
from ..wanvideo.weights.residency import Residency
from .host import (
    GGUF,
    ManagedModel,
    check_interrupt,
    encode_with_clip,
    evict,
    is_core_clip,
    list_files,
    load,
    make_room,
    resolve_file,
    text_encoder_device,
    text_encoder_offload_device,
    user_folder,
)
from .sockets import WanTextEncoder
from .text_cache import TextCache

log = logging.getLogger(__name__)

FOLDER = "text_encoders"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
QUANTIZATIONS = {"disabled": None, "fp8_e4m3fn": torch.float8_e4m3fn}
STREAMING_BYTES = 1.5e9  # one fp32 block of umt5-xxl and the activations of 512 tokens
Encode = Callable[[Sequence[str]], list[Tensor]]
"""Prompts to rows ``[L, width]`` each."""


def check_encoder(checkpoint: Checkpoint) -> None:
    """Raise a :class:`WanError` unless the file is, by its header, a UMT5 encoder."""
    read_config(official_umt5(checkpoint))


def find_encoder(name: str) -> Path:
    """The file of a name in the list of text encoders."""
    return resolve_file(FOLDER, name, input_name="model_name", extra_suffixes=GGUF)


def load_text_encoder(path: Path, precision: str, quantization: str) -> WanTextEncoder:
    """Open a text encoder file; its weights stay mapped until they are used."""
    checkpoint = Checkpoint.open(path)
    encoder = load_umt5(
        checkpoint,
        dtype=PRECISIONS[precision],
        storage_dtype=QUANTIZATIONS[quantization],
        other_files=[find_encoder(name) for name in list_files(FOLDER, extra_suffixes=GGUF)],
    )
    managed = ManagedModel(
        Residency(encoder.module),
        load_device=text_encoder_device(),
        offload_device=text_encoder_offload_device(),
    )
    return WanTextEncoder(managed, encoder, identity(checkpoint, precision, quantization))


def identity(checkpoint: Checkpoint, precision: str, quantization: str) -> tuple[object, ...]:
    """What encoded prompts depend on beside their text."""
    return (checkpoint.fingerprint(), precision, quantization)


def encoder_of(t5: object, *, force_offload: bool, device: str) -> Encode:
    """A function that encodes prompts with what is connected to ``t5``.

    With ``force_offload`` the weights of our encoder are streamed block by block: every block is needed
    once per run, so nothing would be won by loading all of them first.

    Raises:
        InputError: nothing or something else is connected.
    """
    if is_core_clip(t5):
        return lambda prompts: encode_with_clip(t5, [clean_prompt(prompt) for prompt in prompts])
    if t5 is None:
        raise InputError(
            "t5", "no text encoder connected; connect WanVideo T5 Text Encoder Loader or Load CLIP"
        )
    if not isinstance(t5, WanTextEncoder):
        raise InputError("t5", f"expected a text encoder, got {type(t5).__name__}")

    def encode(prompts: Sequence[str]) -> list[Tensor]:
        chosen = torch.device("cpu") if device == "cpu" else t5.managed.load_device
        if force_offload or chosen.type == "cpu":
            make_room(STREAMING_BYTES, chosen)
        else:
            load(t5.managed, memory_required=STREAMING_BYTES)
        rows = t5.encoder.encode(prompts, device=chosen, check=check_interrupt)
        if force_offload:
            evict(t5.managed)
        return rows

    return encode


def encode_cached(prompts: Sequence[str], encode: Encode, cache: TextCache | None) -> list[Tensor]:
    """Encode the prompts that are not in the cache, all in one go."""
    if cache is None:
        return encode(prompts)
    known = {prompt: cache.get(prompt) for prompt in dict.fromkeys(prompts)}
    missing = [prompt for prompt, rows in known.items() if rows is None]
    if missing:
        for prompt, rows in zip(missing, encode(missing), strict=True):
            cache.put(prompt, rows)
            known[prompt] = rows
    return [rows for prompt in prompts if (rows := known[prompt]) is not None]


def cache_for(t5: object, *, use_disk_cache: bool) -> TextCache | None:
    """The disk cache of an encoder, if asked for; a core CLIP cannot be told from another one."""
    if not use_disk_cache:
        return None
    if not isinstance(t5, WanTextEncoder):
        log.info("use_disk_cache has no effect with ComfyUI's CLIP: which file it came from is not known")
        return None
    return TextCache(user_folder("text_embeds"), t5.identity)


def encode_both(positive: str, negative: str, encode: Encode, cache: TextCache | None) -> TextEmbeds:
    """A positive text, which may hold several prompts, and a negative one, in one pass of the encoder."""
    split = split_prompts(positive)
    *prompts, last = encode_cached([*split.prompts, negative], encode, cache)
    return TextEmbeds(tuple(prompts), (last,), is_echoshot=split.is_echoshot)


def offload_model(model: object) -> None:
    """Take the transformer connected to ``model_to_offload`` off its device."""
    managed = getattr(model, "managed", None)
    if isinstance(managed, ManagedModel):
        evict(managed)
