"""Text conditioning as the sampler receives it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
