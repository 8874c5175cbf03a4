"""The patch embedding a control LoRA is made for."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError


def expanded_patch_embedding(weight: Tensor, bias: Tensor, in_channels: int) -> tuple[Tensor, Tensor]:
    """A patch embedding that takes more channels and ignores them, until a LoRA is added to it.

    Its last channels are zero, so its result is that of the original whatever is in them. Source:
    https://huggingface.co/spacepxl/Wan2.1-control-loras; a LoRA file states the shape in
    ``patch_embedding.reshape_weight``.

    Args:
        weight: ``[D, C, 1, 2, 2]``.
        bias: ``[D]``.
        in_channels: channels wanted, at least C.

    Returns:
        ``[D, in_channels, 1, 2, 2]`` and ``[D]``, copies in the dtype and on the device of the originals.

    Raises:
        InputError: fewer channels wanted than there are.
    """
    channels = weight.shape[1]
    if in_channels < channels:
        raise InputError(
            "lora",
            f"this control LoRA is made for {in_channels} input channels, the model has {channels}; use it "
            "with a text-to-video model",
        )
    expanded = torch.zeros(
        (weight.shape[0], in_channels, *weight.shape[2:]), dtype=weight.dtype, device=weight.device
    )
    expanded[:, :channels] = weight
    return expanded, bias.clone()
