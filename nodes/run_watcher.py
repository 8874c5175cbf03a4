"""What the user sees of a sampling run while it goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ..wanvideo.generation import GenerationRequest
from .host import Progress, say

log = logging.getLogger(__name__)


class Watcher:
    """Progress bar, preview and the line of text under the node."""

    def __init__(self, request: GenerationRequest, latent_channels: int) -> None:
        first, end = request.run_steps
        self._progress = Progress(end - first, latent_channels=latent_channels)
        self._total = end - first
        self._start = time.perf_counter()

    def on_step(self, step: int, total: int, sigma: float, denoised: Callable[[], Tensor], /) -> None:
        """Report one finished step."""
        done = step + 1
        per_step = (time.perf_counter() - self._start) / done
        text = (
            f"step {done}/{total}, sigma {sigma:.3f}, {per_step:.2f} s/it, "
            f"{(total - done) * per_step:.0f} s left{_peak_memory()}"
        )
        self._progress.update(done, latent=denoised(), text=text)

    def finish(self) -> None:
        """Say what the run took."""
        seconds = time.perf_counter() - self._start
        text = f"{self._total} steps in {seconds:.1f} s{_peak_memory()}"
        log.info("%s", text)
        say(text)


def _peak_memory() -> str:
    if not torch.cuda.is_available():
        return ""
    return f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GB"
