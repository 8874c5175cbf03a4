"""Picture operations done the way ComfyUI's own nodes do them."""

from __future__ import annotations

import comfy.utils
from torch import Tensor


def resize_images(images: Tensor, width: int, height: int, *, crop: bool) -> Tensor:
    """Lanczos resize.

    Args:
        images: ``[F, H, W, C]`` in [0, 1].
        width: pixels.
        height: pixels.
        crop: cut the middle to the new aspect ratio first; otherwise the picture is stretched.

    Returns:
        ``[F, height, width, C]``.
    """
    channels_first = images.movedim(-1, 1)
    resized = comfy.utils.common_upscale(
        channels_first, width, height, "lanczos", "center" if crop else "disabled"
    )
    return resized.movedim(1, -1)
