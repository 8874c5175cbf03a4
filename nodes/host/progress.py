"""Progress bar, preview picture and the line of text under a running node."""

from __future__ import annotations

import logging
from typing import Any

import comfy.latent_formats
import comfy.utils
import latent_preview
from comfy_execution.utils import get_executing_context
from torch import Tensor

from .devices import compute_device

log = logging.getLogger(__name__)

LATENT_FORMATS = {16: comfy.latent_formats.Wan21, 48: comfy.latent_formats.Wan22}
STRIP_LAYOUTS = ((3, 3), (2, 3), (2, 2), (1, 2), (1, 1))  # rows, columns


def say(text: str) -> None:
    """Show a line of text under the node that is running; nothing without a server."""
    context = get_executing_context()
    if context is None:
        return
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_progress_text(text, context.node_id)


class Progress:
    """Progress of one node.

    Args:
        total: number of steps.
        latent_channels: 16 or 48 to show previews of latents, ``None`` for a plain bar.
    """

    def __init__(self, total: int, *, latent_channels: int | None = None) -> None:
        self.total = total
        self._bar = comfy.utils.ProgressBar(total)
        self._channels = latent_channels
        self._previewer: Any = None
        self._previewer_known = latent_channels not in LATENT_FORMATS

    def update(self, done: int, *, latent: Tensor | None = None, text: str | None = None) -> None:
        """Report ``done`` steps of ``total``.

        Args:
            done: finished steps.
            latent: the current estimate of the result, normalised, ``[B, C, T, H, W]``; a picture is
                made of it only when somebody watches.
            text: line shown under the node.
        """
        preview = None if latent is None else self._picture(latent)
        self._bar.update_absolute(done, self.total, preview)
        if text is not None:
            say(text)

    def _picture(self, latent: Tensor) -> object | None:
        """A preview in ComfyUI's form, or ``None``; a preview that fails ends previews, not the run."""
        if self._bar.hook is None:
            return None
        try:
            if not self._previewer_known:
                latent_format = LATENT_FORMATS[self._channels or 16]()
                self._previewer = latent_preview.get_previewer(compute_device(), latent_format)
                self._previewer_known = True
            if self._previewer is None:
                return None
            core = (latent_preview.Latent2RGBPreviewer, latent_preview.TAESDPreviewerImpl)
            shown = filmstrip(latent) if isinstance(self._previewer, core) else latent
            return self._previewer.decode_latent_to_preview_image("JPEG", shown)
        except Exception:  # a previewer may come from any other pack
            log.exception("The preview failed; this run goes on without previews")
            self._previewer, self._previewer_known = None, True
            return None


def filmstrip(latent: Tensor) -> Tensor:
    """Up to nine frames side by side as one frame.

    Args:
        latent: ``[B, C, T, H, W]``.

    Returns:
        ``[1, C, 1, rows * H, columns * W]`` of the first video: frames spread evenly from the first to
        the last one.
    """
    frames = latent.shape[2]
    rows, columns = next((r, c) for r, c in STRIP_LAYOUTS if r * c <= frames)
    count = rows * columns
    picked = [round(i * (frames - 1) / max(count - 1, 1)) for i in range(count)]
    strip = latent[:1, :, picked]
    batch, channels, _, height, width = strip.shape
    grid = strip.reshape(batch, channels, rows, columns, height, width).permute(0, 1, 2, 4, 3, 5)
    return grid.reshape(batch, channels, 1, rows * height, columns * width)
