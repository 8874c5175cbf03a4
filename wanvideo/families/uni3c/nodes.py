"""Load a Uni3C controlnet and steer a run with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from ....nodes.attention import attention_problem
from ....nodes.base import CATEGORY, WanNode, model_file_input
from ....nodes.compile import as_compile_settings
from ....nodes.host import (
    ManagedModel,
    check_file,
    compute_device,
    file_fingerprint,
    io,
    load,
    offload_device,
    resolve_file,
)
from ....nodes.inputs import step_inputs, strength_input
from ....nodes.model_run import program_for
from ....nodes.sockets import AttachedInput, Compile, ControlNet, Uni3cEmbeds
from ...attention.registry import resolve
from ...conditioning.step_range import StepRange
from ...conditioning.timed import Timed
from ...errors import InputError, WanError
from ...weights.checkpoint import Checkpoint
from ...weights.conversion import Conversion
from ...weights.residency import Residency
from .inputs import UNI3C, Uni3CControlnet, Uni3CInput
from .load import load_uni3c, read_config

log = logging.getLogger(__name__)

FOLDER = "controlnet"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTIZATIONS = {"disabled": None, "fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
ATTENTION_MODES = ["sdpa", "sageattn"]
LOAD_DEVICES = ["main_device", "offload_device"]


@dataclass(frozen=True)
class LoadedUni3C:
    """Value of WANVIDEOCONTROLNET.

    Args:
        managed: its weights, as ComfyUI's memory manager sees them.
        controlnet: the network.
    """

    managed: ManagedModel
    controlnet: Uni3CControlnet


class WanVideoUni3CControlnetLoader(WanNode):
    """Loads a controlnet file; sizes and format are read from it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoUni3C_ControlnetLoader",
            display_name="WanVideo Uni3C Controlnet Loader",
            category=CATEGORY,
            description="Loads a Uni3C controlnet (https://github.com/ewrfcas/Uni3C): it lets a 14B model "
            "follow the camera of a rendered video.",
            inputs=[
                model_file_input("model", folder=FOLDER),
                io.Combo.Input(
                    "base_precision",
                    options=list(PRECISIONS),
                    default="fp16",
                    tooltip="What the controlnet computes in.",
                ),
                io.Combo.Input(
                    "quantization",
                    options=list(QUANTIZATIONS),
                    default="disabled",
                    tooltip="fp8_* converts the matrices of a 16 or 32 bit file while it is loaded.",
                ),
                io.Combo.Input(
                    "load_device",
                    options=LOAD_DEVICES,
                    default=LOAD_DEVICES[1],
                    tooltip="main_device brings it to the GPU now; offload_device with the model of a run.",
                ),
                io.Combo.Input(
                    "attention_mode",
                    options=ATTENTION_MODES,
                    default=ATTENTION_MODES[0],
                    tooltip="How its attention is computed; the model has a setting of its own.",
                ),
                Compile.Input("compile_args", optional=True, tooltip="Compiles its blocks."),
            ],
            outputs=[ControlNet.Output(display_name="controlnet")],
        )

    @classmethod
    def validate_inputs(cls, model: object, attention_mode: object = None) -> bool | str:
        """Find the file and look at its header, before anything is loaded."""
        found = check_file(FOLDER, model, input_name="model")
        if found is not True or not isinstance(model, str):
            return found
        path = resolve_file(FOLDER, model, input_name="model")
        try:
            if path.suffix.lower() == ".safetensors":  # others have no header that could be read alone
                read_config(Checkpoint.open(path))
        except WanError as error:
            return f"model: {error}"
        return attention_problem(attention_mode) or True

    @classmethod
    def fingerprint_inputs(cls, model: object = None, **_: object) -> tuple[str, int, int]:
        """Load again when the file changed."""
        return file_fingerprint(FOLDER, model)

    @classmethod
    def run(
        cls,
        *,
        model: str,
        base_precision: str,
        quantization: str,
        load_device: str,
        attention_mode: str,
        compile_args: object = None,
    ) -> io.NodeOutput:
        """Load the file."""
        path, device = resolve_file(FOLDER, model, input_name="model"), compute_device()
        dtype = PRECISIONS[base_precision]
        attention = resolve(attention_mode, device=device, dtype=dtype)
        converted_to = QUANTIZATIONS[quantization]
        network = load_uni3c(
            Checkpoint.open(path),
            compute_dtype=dtype,
            conversion=Conversion(converted_to) if converted_to else None,
        )
        program = program_for(as_compile_settings(compile_args), device, name=path.name)
        managed = ManagedModel(Residency(network), load_device=device, offload_device=offload_device())
        if load_device == LOAD_DEVICES[0]:
            load(managed)
        log.info(
            "%s: Uni3C controlnet of %d blocks, computing in %s", path.name, network.config.layers, dtype
        )
        return io.NodeOutput(LoadedUni3C(managed, Uni3CControlnet(network, path.name, attention, program)))


class WanVideoUni3CEmbeds(WanNode):
    """A rendered video for a controlnet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoUni3C_embeds",
            display_name="WanVideo Uni3C Embeds",
            category=CATEGORY,
            description="A rendered video whose camera the run follows (https://github.com/ewrfcas/Uni3C): a "
            "point cloud of the start image seen by a moving camera, with the start image as first frame.",
            inputs=[
                ControlNet.Input("controlnet"),
                strength_input("strength", "How much the render counts; 0 is as if nothing were connected."),
                *step_inputs("the controlnet"),
                io.Latent.Input(
                    "render_latent",
                    optional=True,
                    tooltip="The rendered video, encoded; another length or size is fitted.",
                ),
                io.Mask.Input(
                    "render_mask",
                    optional=True,
                    tooltip="White where the render shows something. Uni3C was trained with it; without, its "
                    "mask input is left out, as in WanVideoWrapper and ComfyUI.",
                ),
                io.Boolean.Input(
                    "offload",
                    default=True,
                    optional=True,
                    tooltip="Has no effect: the controlnet runs block by block with the model and leaves the "
                    "GPU with it.",
                ),
            ],
            outputs=[Uni3cEmbeds.Output(display_name="uni3c_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        controlnet: object,
        strength: float,
        start_percent: float,
        end_percent: float,
        render_latent: dict[str, Tensor] | None = None,
        render_mask: Tensor | None = None,
        offload: bool = True,
    ) -> io.NodeOutput:
        """The render and the network for the sampler."""
        del offload
        if not isinstance(controlnet, LoadedUni3C):
            raise InputError(
                "controlnet",
                f"got {type(controlnet).__name__}; connect WanVideo Uni3C Controlnet Loader",
            )
        if render_latent is None:
            raise InputError("render_latent", "no render is connected; encode one with WanVideo Encode")
        mask = render_mask[None] if render_mask is not None and render_mask.ndim == 2 else render_mask
        value = Uni3CInput(
            controlnet.controlnet,
            Timed(render_latent["samples"]),
            None if mask is None else Timed(mask, axis=0, clock="pixel"),
            strength,
            steps=StepRange(start_percent, end_percent),
        )
        return io.NodeOutput(AttachedInput(UNI3C, value, companions=(controlnet.managed,)))


NODES: list[type[WanNode]] = [WanVideoUni3CControlnetLoader, WanVideoUni3CEmbeds]
