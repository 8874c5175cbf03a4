"""The sampler that goes on from given frames."""

from __future__ import annotations

from typing import Any

from ....nodes import sockets
from ....nodes.base import CATEGORY, WanNode
from ....nodes.host import io
from ....nodes.sampling_run import SamplerInputs, run_sampler
from ...errors import NotYetError
from ...sampling.solvers.unipc import FrameUniPC
from .family import FAMILY
from .inputs import PrefixInput

SCHEDULERS = ("unipc", "unipc/beta", "euler", "euler/beta", "lcm", "lcm/beta")
ROPE_FUNCTIONS = ("default", "comfy")


def _numbers() -> list[io.Input]:
    return [
        io.Int.Input(
            "addnoise_condition",
            default=10,
            min=0,
            max=1000,
            tooltip="Timestep of the noise the model sees on prefix_samples; keeps long videos consistent.",
        ),
        io.Float.Input(
            "fps", default=24.0, min=1.0, max=120.0, step=0.01, tooltip="For models that were told the rate."
        ),
        io.Int.Input("steps", default=30, min=1),
        io.Float.Input("cfg", default=6.0, min=0.0, max=30.0, step=0.01),
        io.Float.Input("shift", default=8.0, min=0.0, max=1000.0, step=0.01),
        io.Int.Input("seed", default=0, min=0, max=2**64 - 1),
        io.Boolean.Input(
            "force_offload", default=True, tooltip="Take the model off the GPU when the run is done."
        ),
        io.Combo.Input("scheduler", options=list(SCHEDULERS), default=SCHEDULERS[0]),
    ]


def _optional() -> list[io.Input]:
    return [
        io.Latent.Input("samples", optional=True, tooltip="A video to redo in part; see denoise_strength."),
        io.Latent.Input("prefix_samples", optional=True, tooltip="Frames the video goes on from."),
        io.Float.Input("denoise_strength", default=1.0, min=0.0, max=1.0, step=0.01, optional=True),
        sockets.Cache.Input("cache_args", optional=True),
        sockets.SkipLayerGuidance.Input("slg_args", optional=True),
        io.Combo.Input("rope_function", options=list(ROPE_FUNCTIONS), default="comfy", optional=True),
        sockets.Experimental.Input("experimental_args", optional=True),
        sockets.UniAnimatePose.Input("unianimate_poses", optional=True),
    ]


class WanVideoDiffusionForcingSampler(WanNode):
    """Samples a video whose first frames are given."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoDiffusionForcingSampler",
            display_name="WanVideo Diffusion Forcing Sampler",
            category=CATEGORY,
            description="Goes on from prefix_samples, which stay as they are (SkyReels V2 DF).",
            inputs=[
                sockets.Model.Input("model"),
                sockets.TextEmbedsSocket.Input("text_embeds"),
                sockets.ImageEmbedsSocket.Input("image_embeds"),
                *_numbers(),
                *_optional(),
            ],
            outputs=[io.Latent.Output(display_name="samples")],
        )

    @classmethod
    def run(
        cls,
        *,
        addnoise_condition: int,
        fps: float,
        samples: dict[str, Any] | None = None,
        prefix_samples: dict[str, Any] | None = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        """Sample."""
        if "fps embedding" in inputs["model"].spec.capabilities:
            raise NotYetError("model", f"a model that is told the frame rate ({fps:g})", "use another model")
        embeds = inputs.pop("image_embeds")
        if prefix_samples is not None:
            prefix = PrefixInput(prefix_samples["samples"], float(addnoise_condition), inputs["seed"])
            embeds = embeds.with_input(FAMILY.name, prefix)
        if inputs["scheduler"].startswith("unipc"):
            inputs["solver"] = FrameUniPC()
        redone = samples if inputs.get("denoise_strength", 1.0) < 1.0 else None
        return io.NodeOutput(
            run_sampler(SamplerInputs(image_embeds=embeds, samples=redone, **inputs)).args[0]
        )


NODES: list[type[WanNode]] = [WanVideoDiffusionForcingSampler]
