"""Load a VAE, decode latents to pictures and encode pictures to latents."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..wanvideo.conditioning.decode_plan import DecodePlan
from ..wanvideo.errors import NotYetError
from ..wanvideo.vae import Tiling, VideoVAE, latent_space_for, load_tiny_vae, load_vae
from ..wanvideo.vae.layouts import read_layout
from ..wanvideo.weights.checkpoint import Checkpoint
from ..wanvideo.weights.kinds import wrong_kind
from .base import CATEGORY, ModelNameNode, WanNode, model_file_input
from .host import (
    ManagedModel,
    io,
    resolve_file,
    say,
    vae_device,
    vae_offload_device,
)
from .sockets import DECODE_PLAN, Compile, VaeSocket, WanVAE
from .video_vae import as_video_vae, augment, check_channels, decode_video, fit_images

log = logging.getLogger(__name__)

PRECISIONS = {"fp16": torch.float16, "fp32": torch.float32, "bf16": torch.bfloat16}
TILING_TOOLTIP = "Work on overlapping tiles: needs far less memory, takes longer, may show faint seams."


def vae_input(name: str = "vae", *, optional: bool = False) -> io.MultiType.Input:
    """A socket for this pack's VAE or ComfyUI's."""
    return io.MultiType.Input(
        name,
        types=[VaeSocket, io.Vae],
        optional=optional,
        tooltip="From WanVideo VAE Loader or ComfyUI's Load VAE.",
    )


def tile_inputs(*, most_stride: int, least: int, step: int, stride_step: int) -> list[io.Input]:
    """The tiling switch and the four tile sizes in pixels, with the ranges of one node."""

    def size(name: str, default: int, minimum: int, maximum: int, by: int, tooltip: str) -> io.Int.Input:
        return io.Int.Input(name, default=default, min=minimum, max=maximum, step=by, tooltip=tooltip)

    distance = "Distance of neighbouring tiles in pixels; the rest of a tile overlaps."
    return [
        io.Boolean.Input("enable_vae_tiling", default=False, tooltip=TILING_TOOLTIP),
        size("tile_x", 272, least, 2048, step, "Width of a tile in pixels."),
        size("tile_y", 272, least, 2048, step, "Height of a tile in pixels."),
        size("tile_stride_x", 144, 32, most_stride, stride_step, distance),
        size("tile_stride_y", 128, 32, most_stride, stride_step, distance),
    ]


def decode_plan_of(samples: Mapping[str, Any]) -> DecodePlan:
    """What a LATENT says of its frames: in our words, else by the ``has_ref`` of the pack before this one."""
    plan = samples.get(DECODE_PLAN)
    if isinstance(plan, DecodePlan):
        return plan
    return DecodePlan(leading_frames=int(bool(samples.get("has_ref"))))


def tiling_of(enable_vae_tiling: bool, sizes: dict[str, int]) -> Tiling | None:
    """The tiles the inputs ask for, ``None`` when tiling is off."""
    if not enable_vae_tiling:
        return None
    return Tiling(sizes["tile_x"], sizes["tile_y"], sizes["tile_stride_x"], sizes["tile_stride_y"])


class _VaeFileNode(ModelNameNode):
    @classmethod
    def check_header(cls, checkpoint: Checkpoint) -> None:
        if not read_layout(checkpoint):
            raise wrong_kind(checkpoint, "a Wan VAE")


class WanVideoVAELoader(_VaeFileNode):
    """Loads a VAE file."""

    FOLDER = "vae"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoVAELoader",
            display_name="WanVideo VAE Loader",
            category=CATEGORY,
            description="Loads a Wan 2.1 or Wan 2.2 VAE; which one is read from the file.",
            inputs=[
                model_file_input("model_name", folder="vae"),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="bf16",
                    optional=True,
                    tooltip="What the VAE computes in. fp32 is exact and needs twice the memory.",
                ),
                Compile.Input("compile_args", optional=True),
                io.Boolean.Input(
                    "use_cpu_cache",
                    default=False,
                    optional=True,
                    tooltip="Keep what one frame hands to the next in host memory: less VRAM, much slower.",
                ),
                io.Boolean.Input(
                    "verbose", default=False, optional=True, tooltip="Log time and peak memory of each use."
                ),
            ],
            outputs=[VaeSocket.Output(display_name="vae")],
        )

    @classmethod
    def run(
        cls,
        *,
        model_name: str,
        precision: str = "bf16",
        compile_args: object = None,
        use_cpu_cache: bool = False,
        verbose: bool = False,
    ) -> io.NodeOutput:
        """Load the file; its weights stay where they are until the VAE is used."""
        if compile_args is not None:
            raise NotYetError("compile_args", "torch.compile for the VAE", "disconnect it")
        path = resolve_file("vae", model_name, input_name="model_name")
        vae = load_vae(
            Checkpoint.open(path), dtype=PRECISIONS[precision], use_cpu_cache=use_cpu_cache, verbose=verbose
        )
        return io.NodeOutput(managed_vae(vae, path))


class WanVideoTinyVAELoader(_VaeFileNode):
    """Loads a tiny VAE file."""

    FOLDER = "vae_approx"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoTinyVAELoader",
            display_name="WanVideo Tiny VAE Loader",
            category=CATEGORY,
            description="Loads a small approximate VAE (taew2_1, lighttaew2_1, ...): fast, less detail.",
            inputs=[
                model_file_input("model_name", folder="vae_approx"),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="fp16",
                    optional=True,
                    tooltip="What the VAE computes in.",
                ),
                io.Boolean.Input(
                    "parallel",
                    default=False,
                    optional=True,
                    tooltip="Has no effect: frames are made one after another, with the same result.",
                ),
            ],
            outputs=[VaeSocket.Output(display_name="vae")],
        )

    @classmethod
    def run(cls, *, model_name: str, precision: str = "fp16", parallel: bool = False) -> io.NodeOutput:
        """Load the file."""
        path = resolve_file("vae_approx", model_name, input_name="model_name")
        if parallel:
            log.info("%s: parallel has no effect, frames are always made one after another", cls.shown_name())
        vae = load_tiny_vae(Checkpoint.open(path), dtype=PRECISIONS[precision])
        return io.NodeOutput(managed_vae(vae, path))


def managed_vae(vae: VideoVAE, path: Path) -> WanVAE:
    """A VAE that ComfyUI's memory manager can see."""
    managed = ManagedModel(vae.residency, load_device=vae_device(), offload_device=vae_offload_device())
    return WanVAE(managed, vae, path.name)


class WanVideoDecode(WanNode):
    """Latents to pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoDecode",
            display_name="WanVideo Decode",
            category=CATEGORY,
            description="Decodes a video latent to frames.",
            inputs=[
                vae_input(),
                io.Latent.Input("samples"),
                *tile_inputs(most_stride=2040, least=40, step=8, stride_step=8),
                io.Combo.Input(
                    "normalization",
                    options=["default", "minmax", "none"],
                    optional=True,
                    advanced=True,
                    tooltip="default: cut off at black and white; minmax: stretch the darkest and brightest "
                    "value of the clip to black and white; none: the VAE's own values, about -1 to 1.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def run(
        cls,
        *,
        vae: object,
        samples: dict[str, Any],
        enable_vae_tiling: bool,
        normalization: str = "default",
        **sizes: int,
    ) -> io.NodeOutput:
        """Frames ``[F, H, W, 3]`` in [0, 1]."""
        decoder, latent = as_video_vae(vae), samples["samples"]
        check_channels(decoder, latent)
        images = decode_video(
            decoder,
            latent,
            decode_plan_of(samples),
            tiling=tiling_of(enable_vae_tiling, sizes),
            normalization=normalization,
        )
        return io.NodeOutput(images)


class WanVideoEncode(WanNode):
    """Pictures to a latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoEncode",
            display_name="WanVideo Encode",
            category=CATEGORY,
            description="Encodes frames to a video latent.",
            inputs=[
                vae_input(),
                io.Image.Input("image"),
                *tile_inputs(most_stride=2048, least=64, step=1, stride_step=32),
                io.Float.Input(
                    "noise_aug_strength",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.001,
                    optional=True,
                    tooltip="Noise added to the pictures first; a little gives more motion and detail when "
                    "a model is conditioned on them.",
                ),
                io.Float.Input(
                    "latent_strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.001,
                    optional=True,
                    tooltip="Factor on the latent as the model sees it; less leaves more freedom to move.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 where the sampler may change the video, 0 where it stays.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="samples")],
        )

    @classmethod
    def run(
        cls,
        *,
        vae: object,
        image: Tensor,
        enable_vae_tiling: bool,
        noise_aug_strength: float = 0.0,
        latent_strength: float = 1.0,
        mask: Tensor | None = None,
        **sizes: int,
    ) -> io.NodeOutput:
        """Latent ``[1, C, T, h, w]`` in core's convention, with the mask as ``noise_mask``."""
        encoder = as_video_vae(vae)
        images, changes = fit_images(encoder, image)
        report(cls.shown_name(), changes)
        latent = encoder.encode(
            augment(images, noise_aug_strength), tiling=tiling_of(enable_vae_tiling, sizes)
        )
        if latent_strength != 1.0:
            space = latent_space_for(encoder.latent_channels)
            latent = space.denormalise(space.normalise(latent) * latent_strength)
        result = {"samples": latent}
        if mask is not None:
            result["noise_mask"] = mask
        return io.NodeOutput(result)


class WanVideoEncodeLatentBatch(WanNode):
    """Each picture to a latent of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoEncodeLatentBatch",
            display_name="WanVideo Encode Latent Batch",
            category=CATEGORY,
            description="Encodes every picture on its own, as a video of one frame: a batch of first frames, "
            "for example one per context window.",
            inputs=[
                vae_input(),
                io.Image.Input("images"),
                *tile_inputs(most_stride=2048, least=64, step=1, stride_step=32),
            ],
            outputs=[io.Latent.Output(display_name="samples")],
        )

    @classmethod
    def run(cls, *, vae: object, images: Tensor, enable_vae_tiling: bool, **sizes: int) -> io.NodeOutput:
        """Latent ``[F, C, 1, h, w]``."""
        encoder, tiling = as_video_vae(vae), tiling_of(enable_vae_tiling, sizes)
        latents, changes = [], []
        for image in images.split(1):
            fitted, changes = fit_images(encoder, image)
            latents.append(encoder.encode(fitted, tiling=tiling))
        report(cls.shown_name(), changes)
        return io.NodeOutput({"samples": torch.cat(latents)})


def report(node: str, changes: list[str]) -> None:
    """Say in the log and under the node what was changed to fit."""
    if changes:
        log.warning("%s: %s", node, "; ".join(changes))
        say("; ".join(changes))


NODES: list[type[WanNode]] = [
    WanVideoVAELoader,
    WanVideoTinyVAELoader,
    WanVideoDecode,
    WanVideoEncode,
    WanVideoEncodeLatentBatch,
]
