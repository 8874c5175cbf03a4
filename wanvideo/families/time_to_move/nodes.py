"""Time-to-Move: the movement of a crude video."""

from __future__ import annotations

from torch import Tensor

from ....nodes.base import CATEGORY, WanNode
from ....nodes.host import io
from ....nodes.sockets import ImageEmbedsSocket, as_image_embeds
from ...errors import InputError
from .edit import StepWindow
from .inputs import TIME_TO_MOVE, TimeToMoveInput


class WanVideoAddTTMLatents(WanNode):
    """A movement to follow, added to any embeds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoAddTTMLatents",
            display_name="WanVideo Add TTMLatents",
            category=CATEGORY,
            description="Time-to-Move (https://github.com/time-to-move/TTM): the video follows a crude one, "
            "such as a cut-out that is dragged, closely where the mask says so. For any model, best image to "
            "video.",
            inputs=[
                ImageEmbedsSocket.Input("embeds"),
                io.Latent.Input("reference_latents", tooltip="The crude video, encoded."),
                io.Mask.Input(
                    "mask", tooltip="White where the crude video moves something, by frames of it."
                ),
                io.Int.Input(
                    "start_step",
                    default=0,
                    min=-1,
                    max=1000,
                    step=1,
                    tooltip="The run begins at this step of the schedule, from the noised crude video: the "
                    "later, the more of all of it is kept. -1 begins at step 0 from noise alone.",
                ),
                io.Int.Input(
                    "end_step",
                    default=1,
                    min=1,
                    max=1000,
                    step=1,
                    tooltip="From this step of the schedule on the white part is free as well. Of 50 steps: "
                    "3 to 7 to drag things, 2 to 5 to move the camera.",
                ),
            ],
            outputs=[ImageEmbedsSocket.Output(display_name="image_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        embeds: object,
        reference_latents: dict[str, Tensor],
        mask: Tensor,
        start_step: int,
        end_step: int,
    ) -> io.NodeOutput:
        """The embeds with the movement."""
        if end_step < max(0, start_step):
            raise InputError(
                "end_step", f"{end_step} lies before start_step {start_step}; it is one past the last step"
            )
        movement = TimeToMoveInput(
            reference_latents["samples"],
            mask[None] if mask.ndim == 2 else mask,
            StepWindow(start_step, end_step),
        )
        return io.NodeOutput(as_image_embeds(embeds, input_name="embeds").with_input(TIME_TO_MOVE, movement))


NODES: list[type[WanNode]] = [WanVideoAddTTMLatents]
