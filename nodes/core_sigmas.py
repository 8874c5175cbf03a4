"""Wan's sigmas for ComfyUI's own scheduler nodes."""

from __future__ import annotations

from ..wanvideo.errors import InputError
from .base import CATEGORY, WanNode
from .host import SigmasOnlyModel, io


class DummyComfyWanModelObject(WanNode):
    """A model that only knows its schedule."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="DummyComfyWanModelObject",
            display_name="Dummy Comfy Wan Model Object",
            category=CATEGORY,
            description="A MODEL without weights: connect it to BasicScheduler to get Wan's sigmas with "
            "ComfyUI's schedules, for the sigmas input of the sampler.",
            inputs=[
                io.Float.Input(
                    "shift",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="Above 1 more steps go to high noise; Wan uses 3 to 8. Must be above 0.",
                )
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def run(cls, *, shift: float) -> io.NodeOutput:
        """The model."""
        if shift <= 0:
            raise InputError("shift", f"{shift:g} gives no falling row of sigmas; use a value above 0")
        return io.NodeOutput(SigmasOnlyModel(shift))


NODES: list[type[WanNode]] = [DummyComfyWanModelObject]
