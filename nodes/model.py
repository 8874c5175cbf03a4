"""Load a Wan transformer."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch

from ..wanvideo.attention.registry import check_available
from ..wanvideo.errors import InputError, NotYetError, WanError
from ..wanvideo.families import extend
from ..wanvideo.load import LoadedTransformer, load_transformer
from ..wanvideo.transformer.norms import RMS_NORM_FUNCTIONS
from ..wanvideo.weights.checkpoint import Checkpoint
from ..wanvideo.weights.conversion import Scaling
from ..wanvideo.weights.detect import detect
from ..wanvideo.weights.fp8_matmul import use_fp8_matmul
from ..wanvideo.weights.matmul_precision import fp16_accumulation_problem
from ..wanvideo.weights.quantization import OPTIONS as QUANTIZATIONS
from ..wanvideo.weights.quantization import check_quantization, wants_fp8_matmul
from ..wanvideo.weights.residency import ModelResidency
from . import sockets
from .attention import HOST_BACKENDS, attention_mode_input, attention_problem
from .base import CATEGORY, WanNode, model_file_input
from .compile import as_compile_settings
from .extra_models import FOLDER, as_paths
from .host import (
    GGUF,
    ManagedBlocks,
    check_file,
    compute_device,
    file_fingerprint,
    io,
    load,
    offload_device,
    pinning_for,
    resolve_file,
)
from .memory import warn_about
from .memory_settings import MemorySettings, as_block_swap, as_vram_management
from .notices import warn
from .run_plan import plan_loading
from .wan_model import WanVideoModel

log = logging.getLogger(__name__)

FP16_FAST = "fp16_fast"
PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    FP16_FAST: torch.float16,
}
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
EMPTY_VALUES = ("", None)  # what old graphs carry after their last widget
LATER_INPUTS = {
    "lora": "LoRA",
    "fantasytalking_model": "FantasyTalking",
    "multitalk_model": "MultiTalk",
    "fantasyportrait_model": "FantasyPortrait",
}


def _appended_inputs() -> list[io.Input]:
    """What the predecessor's node does not have."""
    return [
        io.Combo.Input(
            "fp8_scaling",
            options=list(SCALINGS),
            default=SCALINGS[0],
            optional=True,
            advanced=True,
            tooltip="How quantization fp8_* converts a 16 or 32 bit file: none casts the numbers as they "
            "are, row and tensor keep a factor for each row or matrix and lose less.",
        ),
        sockets.VaceModel.Input("vace_model", optional=True, tooltip="What older graphs call extra_model."),
    ]


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
                model_file_input("model", folder=FOLDER, extra_suffixes=GGUF),
                io.Combo.Input(
                    "base_precision",
                    options=list(PRECISIONS),
                    default="bf16",
                    tooltip="What the model computes in. Norms, modulation and embeddings of time stay fp32. "
                    "fp16_fast also keeps the sums of products in fp16 while this model runs.",
                ),
                io.Combo.Input(
                    "quantization",
                    options=list(QUANTIZATIONS),
                    default="disabled",
                    tooltip="disabled reads the file as it is stored. fp8_* converts a 16 or 32 bit file "
                    "while it is loaded; _scaled is for files that have scales; _fast multiplies in fp8 "
                    "where the GPU can (RTX 40 series and newer).",
                ),
                io.Combo.Input(
                    "load_device",
                    options=["main_device", "offload_device"],
                    default="offload_device",
                    tooltip="main_device brings the model to the GPU now and keeps it there between runs; "
                    "offload_device brings it at first use.",
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
                *_appended_inputs(),
            ],
            outputs=[sockets.Model.Output(display_name="model")],
        )

    @classmethod
    def validate_inputs(
        cls,
        model: object,
        quantization: object = None,
        attention_mode: object = None,
        fp8_scaling: object = None,
    ) -> bool | str:
        """Find the file and compare its header with the options, before anything is loaded."""
        if isinstance(fp8_scaling, str) and fp8_scaling not in (*SCALINGS, *EMPTY_VALUES):
            return f"fp8_scaling: {fp8_scaling!r} is not one of {', '.join(SCALINGS)}"
        found = check_file(FOLDER, model, input_name="model", extra_suffixes=GGUF)
        if found is not True or not isinstance(model, str):
            return found
        try:
            checkpoint = Checkpoint.open(_resolve(model))
            detect(checkpoint)
            if isinstance(quantization, str):
                check_quantization(checkpoint, quantization)
        except InputError as error:
            return str(error)
        except WanError as error:
            return f"model: {error}"
        return attention_problem(attention_mode) or True

    @classmethod
    def fingerprint_inputs(cls, model: object = None, **_: object) -> tuple[str, int, int]:
        """Load again when the file changed."""
        return file_fingerprint(FOLDER, model, extra_suffixes=GGUF)

    @classmethod
    def run(
        cls,
        model: str,
        base_precision: str,
        quantization: str,
        load_device: str,
        attention_mode: str = "sdpa",
        rms_norm_function: str = "default",
        **options: object,
    ) -> io.NodeOutput:
        """Load the file."""
        for name, what in LATER_INPUTS.items():
            if options.get(name) is not None:
                raise NotYetError(name, what, "disconnect this input")
        check_available(attention_mode, host_backends=HOST_BACKENDS)
        memory = MemorySettings(
            as_block_swap(options.get("block_swap_args")),
            as_vram_management(options.get("vram_management_args")),
            stays_on_device=load_device == "main_device",
        )
        source = _Source(
            _resolve(model),
            PRECISIONS[base_precision],
            quantization,
            _scaling(options.get("fp8_scaling")),
            (
                *as_paths(options.get("extra_model"), input_name="extra_model"),
                *as_paths(options.get("vace_model"), input_name="vace_model"),
            ),
        )
        loaded = replace(
            _load(cls, source),
            attention_mode=attention_mode,
            rms_norm=rms_norm_function,
            memory=memory,
            compiling=as_compile_settings(options.get("compile_args")),
            sums_in_fp16=_sums_in_fp16(cls, base_precision),
        )
        warn_about(cls, memory, blocks=len(loaded.transformer.blocks))
        if memory.stays_on_device:
            loaded.residency.apply(plan_loading(loaded).memory)
            load(loaded.managed)
        return io.NodeOutput(loaded)


@dataclass(frozen=True)
class _Source:
    """What is loaded and how.

    Args:
        path: of the main file.
        compute_dtype: of the token stream.
        quantization: one of ``QUANTIZATIONS``.
        scaling: of a conversion to fp8.
        extras: files with further modules.
    """

    path: Path
    compute_dtype: torch.dtype
    quantization: str
    scaling: Scaling
    extras: tuple[Path, ...]

    def open(self) -> LoadedTransformer:
        """Read the files."""
        checkpoint = Checkpoint.open(self.path)
        conversion = check_quantization(checkpoint, self.quantization)
        return load_transformer(
            checkpoint,
            compute_dtype=self.compute_dtype,
            conversion=replace(conversion, scaling=self.scaling) if conversion else None,
            extras=[Checkpoint.open(extra) for extra in self.extras],
            extend=extend,
        )


def _resolve(name: str) -> Path:
    return resolve_file(FOLDER, name, input_name="model", extra_suffixes=GGUF)


def _scaling(value: object) -> Scaling:
    return SCALINGS[SCALINGS.index(value) if value in SCALINGS else 0]


def _sums_in_fp16(node: type[WanNode], base_precision: str) -> bool:
    if base_precision != FP16_FAST:
        return False
    problem = fp16_accumulation_problem()
    if problem is not None:
        warn(node, f"base_precision: {problem}")
    return problem is None


def _load(node: type[WanNode], source: _Source) -> WanVideoModel:
    loaded = source.open()
    transformer, device = loaded.transformer, compute_device()
    if wants_fp8_matmul(source.quantization):
        report = use_fp8_matmul(transformer, device, source.compute_dtype)
        if report.multiplied:
            log.info("%s: %s", source.path.name, report)
        else:
            warn(node, f"quantization: {report}")
    residency = ModelResidency(
        transformer,
        [stage.block for stage in transformer.stages()],
        embedders=transformer.embedders(),
        pin=pinning_for(transformer),
    )
    managed = ManagedBlocks(residency, load_device=device, offload_device=offload_device())
    log.info("%s: %s, computing in %s", source.path.name, loaded.spec, source.compute_dtype)
    return WanVideoModel(managed, loaded.spec, source.path.name)


NODES: list[type[WanNode]] = [WanVideoModelLoader]
