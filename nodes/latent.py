"""Latents between this pack and ComfyUI."""

from __future__ import annotations

import logging

from .base import CATEGORY, WanNode
from .host import io, say

log = logging.getLogger(__name__)


class WanVideoLatentReScale(WanNode):
    """Kept for graphs made with the wrapper; latents need no conversion here."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoLatentReScale",
            display_name="WanVideo Latent ReScale",
            category=CATEGORY,
            description="Not needed any more: latents of this pack and of ComfyUI have the same scale, so "
            "they pass through unchanged and graphs that contain this node give the right picture.",
            inputs=[
                io.Latent.Input("samples"),
                io.Combo.Input(
                    "direction",
                    options=["comfy_to_wrapper", "wrapper_to_comfy"],
                    tooltip="Has no effect: both scales are the same.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="samples")],
        )

    @classmethod
    def run(cls, *, samples: dict[str, object], direction: str) -> io.NodeOutput:
        """The same latent."""
        log.info(
            "%s (%s): nothing to do, latents of this pack already have ComfyUI's scale",
            cls.shown_name(),
            direction,
        )
        say("Nothing to do: latents already have ComfyUI's scale.")
        return io.NodeOutput(samples)


NODES: list[type[WanNode]] = [WanVideoLatentReScale]
