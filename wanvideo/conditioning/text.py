"""Text conditioning as the sampler receives it, and the way from two text fields to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..weights.checkpoint import Checkpoint
from .prompts import split_prompts

# Part of every cache key: raise it when the same text gets another encoding.
ENCODING_VERSION = 1


@dataclass(frozen=True)
class TextEmbeds:
    """Encoded prompts, unpadded.

    Args:
        prompt_embeds: one ``[L, text_width]`` tensor per positive prompt; several prompts share the
            frames of the video evenly.
        negative_prompt_embeds: the same for the negative prompt; empty when none was given.
        is_echoshot: the prompts are the numbered shots of an EchoShot model.
    """

    prompt_embeds: tuple[Tensor, ...]
    negative_prompt_embeds: tuple[Tensor, ...] = ()
    is_echoshot: bool = False


class PromptEncoder(Protocol):
    """What turns prompts into embeddings: `encoders.text_encoder.TextEncoder`."""

    def encode(
        self, prompts: Sequence[str], *, device: torch.device | str, check: Callable[[], None]
    ) -> list[Tensor]:
        """One ``[L, text_width]`` tensor per prompt, without padding."""
        ...


def encode_text(
    encoder: PromptEncoder,
    positive_prompt: str,
    negative_prompt: str | None = None,
    *,
    device: torch.device | str,
    check: Callable[[], None] = lambda: None,
) -> TextEmbeds:
    """Encode the two text fields of a node in one batch.

    Args:
        encoder: a loaded text encoder.
        positive_prompt: may hold several prompts (`a | b`) or EchoShot shots (`[1] a [2] b`).
        negative_prompt: one prompt, never split; None for no negative embeddings at all.
        device: where to compute; the result is on the CPU.
        check: called before every block; raises to stop.

    Raises:
        InputError: a number of shots EchoShot cannot make.
    """
    positive = split_prompts(positive_prompt)
    negative = () if negative_prompt is None else (negative_prompt,)
    encoded = encoder.encode((*positive.prompts, *negative), device=device, check=check)
    count = len(positive.prompts)
    return TextEmbeds(tuple(encoded[:count]), tuple(encoded[count:]), positive.is_echoshot)


def cache_key(
    checkpoint: Checkpoint, text: str, *, dtype: torch.dtype, storage_dtype: torch.dtype | None = None
) -> str:
    """A name for the encoding of a text: 64 hexadecimal digits that change with anything it depends on.

    Args:
        checkpoint: the text encoder file; path, size and modification time count, not the content.
        text: a whole text field, weights and separators included.
        dtype: compute precision.
        storage_dtype: quantisation of the linear layers.
    """
    parts = [ENCODING_VERSION, checkpoint.fingerprint(), str(dtype), str(storage_dtype), text]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
