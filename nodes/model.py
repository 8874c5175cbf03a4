"""Load a Wan transformer and choose how its attention is computed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from ..wanvideo.attention.registry import BACKENDS
from ..wanvideo.errors import InputError, NotYetError, WanError
from ..wanvideo.families import discover
from ..wanvideo.load import load_transformer
from ..wanvideo.transformer.model import WanTransformer
from ..wanvideo.transformer.norms import RMS_NORM_FUNCTIONS
from ..wanvideo.weights.checkpoint import Checkpoint
from ..wanvideo.weights.detect import detect
from ..wanvideo.weights.residency import Residency
from . import sockets
from .base import CATEGORY, WanNode, model_file_input
from .host import (
    ManagedModel,
    check_file,
    compute_device,
    file_fingerprint,
    io,
    load,
    offload_device,
    resolve_file,
)
from .wan_model import AttentionOverride, WanVideoModel, attention_function

log = logging.getLogger(__name__)

FOLDER = "diffusion_models"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISION_CHOICES = [*PRECISIONS, "fp16_fast"]
QUANTIZATIONS = [
    "disabled",
    *(
        f"fp8_{kind}{mode}"
        for kind in ("e4m3fn", "e5m2")
        for mode in ("", "_fast", "_scaled", "_scaled_fast")
    ),
]
ATTENTION_MODES = [*BACKENDS, "comfy"]
LATER_INPUTS = {
    "compile_args": "torch.compile",
    "block_swap_args": "block swap",
    "lora": "LoRA",
    "vram_management_args": "VRAM management",
    "extra_model": "an extra model file",
    "fantasytalking_model": "FantasyTalking",
    "multitalk_model": "MultiTalk",
    "fantasyportrait_model": "FantasyPortrait",
}


def attention_mode_input(*, optional: bool = False) -> io.Combo.Input:
    """The list of attention backends."""
    return io.Combo.Input(
        "attention_mode",
        options=ATTENTION_MODES,
        default="sdpa",
        tooltip="How attention is computed. sdpa is PyTorch's and always there; comfy is what ComfyUI uses.",
        optional=optional,
    )


class WanVideoModelLoader(WanNode):
    """Loads a transformer file; format and sizes are read from the file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoModelLoader",
            display_name="WanVideo Model Loader",
            category=CATEGORY,
            description="Loads a Wan video model. What it is and how large is read from the file.",
            inputs=[
                model_file_input("model", folder=FOLDER),
                io.Combo.Input(
                    "base_precision",
                    options=PRECISION_CHOICES,
                    default="bf16",
                    tooltip="What the model computes in. Norms, modulation and embeddings of time stay fp32.",
                ),
                io.Combo.Input(
                    "quantization",
                    options=QUANTIZATIONS,
                    default="disabled",
                    tooltip="'disabled' keeps what the file has.",
                ),
                io.Combo.Input(
                    "load_device",
                    options=["main_device", "offload_device"],
                    default="offload_device",
                    tooltip="main_device brings the model to the GPU now; offload_device at first use.",
                ),
                attention_mode_input(optional=True),
                sockets.Compile.Input("compile_args", optional=True),
                sockets.BlockSwap.Input("block_swap_args", optional=True),
                sockets.Lora.Input("lora", optional=True),
                sockets.VramManagement.Input("vram_management_args", optional=True),
                sockets.VaceModel.Input("extra_model", optional=True),
                sockets.FantasyTalkingModel.Input("fantasytalking_model", optional=True),
                sockets.MultiTalkModel.Input("multitalk_model", optional=True),
                sockets.FantasyPortraitModel.Input("fantasyportrait_model", optional=True),
                io.Combo.Input(
                    "rms_norm_function",
                    options=list(RMS_NORM_FUNCTIONS),
                    default="default",
                    optional=True,
                    tooltip="pytorch is torch's fused operation; equal within rounding.",
                ),
            ],
            outputs=[sockets.Model.Output(display_name="model")],
        )

    @classmethod
    def validate_inputs(cls, model: object) -> bool | str:
        """Find the file and look at its header, before anything is loaded."""
        found = check_file(FOLDER, model, input_name="model")
        if found is not True or not isinstance(model, str):
            return found
        try:
            detect(Checkpoint.open(resolve_file(FOLDER, model, input_name="model")))
        except WanError as error:
            return f"model: {error}"
        return True

    @classmethod
    def fingerprint_inputs(cls, model: object = None, **_: object) -> tuple[str, int, int]:
        """Load again when the file changed."""
        return file_fingerprint(FOLDER, model)

    @classmethod
    def run(
        cls,
        model: str,
        base_precision: str,
        quantization: str,
        load_device: str,
        attention_mode: str = "sdpa",
        rms_norm_function: str = "default",
        **later: object,
    ) -> io.NodeOutput:
        """Load the file."""
        _refuse_later_options(base_precision, quantization, later)
        attention_function(attention_mode)
        path = resolve_file(FOLDER, model, input_name="model")
        loaded = _load(path, PRECISIONS[base_precision])
        if load_device == "main_device":
            load(loaded.managed)
        return io.NodeOutput(replace(loaded, attention_mode=attention_mode, rms_norm=rms_norm_function))


def _refuse_later_options(base_precision: str, quantization: str, later: dict[str, object]) -> None:
    if base_precision not in PRECISIONS:
        raise NotYetError("base_precision", base_precision, "choose fp16, bf16 or fp32")
    if quantization != "disabled":
        raise NotYetError("quantization", quantization, "choose disabled")
    for name, what in LATER_INPUTS.items():
        if later.get(name) is not None:
            raise NotYetError(name, what, "disconnect this input")


def _load(path: Path, compute_dtype: torch.dtype) -> WanVideoModel:
    families = discover()

    def extend(transformer: WanTransformer, checkpoint: Checkpoint) -> None:
        for family in families:
            spec = family.detect(checkpoint)
            if spec is not None:
                family.extend(transformer, spec)

    loaded = load_transformer(Checkpoint.open(path), compute_dtype=compute_dtype, extend=extend)
    managed = ManagedModel(
        Residency(loaded.transformer), load_device=compute_device(), offload_device=offload_device()
    )
    log.info("%s: %s, computing in %s", path.name, loaded.spec, compute_dtype)
    return WanVideoModel(managed, loaded.spec, path.name)


class WanVideoSetAttentionModeOverride(WanNode):
    """Another attention backend for a range of steps and, if given, some blocks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoSetAttentionModeOverride",
            display_name="WanVideo Set Attention Mode Override",
            category=CATEGORY,
            description="Uses another attention backend in some steps, without loading the model again.",
            inputs=[
                sockets.Model.Input("model"),
                attention_mode_input(),
                io.Int.Input("start_step", default=0, min=0, max=10000, tooltip="First step that uses it."),
                io.Int.Input(
                    "end_step", default=10000, min=1, max=10000, tooltip="First step that no longer uses it."
                ),
                io.Boolean.Input("verbose", default=False, tooltip="Log which steps and blocks use it."),
                io.Int.Input(
                    "blocks", optional=True, force_input=True, tooltip="Block numbers; all without."
                ),
            ],
            outputs=[sockets.Model.Output(display_name="model")],
        )

    @classmethod
    def run(
        cls,
        model: WanVideoModel,
        attention_mode: str,
        start_step: int,
        end_step: int,
        verbose: bool,
        blocks: int | list[int] | None = None,
    ) -> io.NodeOutput:
        """Add the override to the model."""
        if start_step >= end_step:
            raise InputError("start_step", f"{start_step} is not below end_step {end_step}")
        attention_function(attention_mode)
        chosen = None
        if blocks is not None:
            chosen = frozenset([blocks] if isinstance(blocks, int) else [int(block) for block in blocks])
        if verbose:
            log.info(
                "attention %s in steps %d to %d, blocks %s", attention_mode, start_step, end_step, chosen
            )
        override = AttentionOverride(attention_mode, start_step, end_step, chosen)
        return io.NodeOutput(replace(model, overrides=(*model.overrides, override)))


NODES: list[type[WanNode]] = [WanVideoModelLoader, WanVideoSetAttentionModeOverride]
