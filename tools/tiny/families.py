"""Key names and shapes of what model families add to a transformer, and of their side networks.

Each function gives the keys a family adds; a file has them beside those of :func:`.specs.dit`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .specs import DiTSize, Shapes, dit, dit_block, norm, numbered, prefixed, weights

CLIP_TOKENS = 257  # of one picture
CAMERA_CHANNELS = 24  # the six of a ray, of four frames
VACE_CHANNELS = 96  # what to keep 16, what to change 16, mask 8 * 8
RANK = 4  # of the control LoRA


@dataclass(frozen=True)
class Uni3CSize:
    """Sizes of a Uni3C controlnet; the real one: 5120, 1024, 8192, 20, 36, 7, 256.

    Args:
        main_width: of the video transformer.
        width: of its own blocks; a multiple of 64, the width of a head.
        feed_forward: inner width of the feed-forward.
        layers: blocks.
        in_channels: noise, mask and the encoded render.
        mask_channels: render mask and camera rays.
        mask_width: of the mask's embedding.
    """

    main_width: int = 256
    width: int = 128
    feed_forward: int = 256
    layers: int = 3
    in_channels: int = 36
    mask_channels: int = 7
    mask_width: int = 256


def first_and_last_frame(size: DiTSize) -> Shapes:
    """Positions for the CLIP tokens of two pictures (FLF2V)."""
    return {"img_emb.emb_pos": (1, 2 * CLIP_TOKENS, size.image_width)}


def reference(size: DiTSize) -> Shapes:
    """The embedding of a reference picture (Fun Control 1.1 and 2.2)."""
    return weights("ref_conv", size.width, size.out_channels, 2, 2)


def camera(size: DiTSize) -> Shapes:
    """The adapter for camera rays (Fun Control-Camera); rays come in cells as large as a latent pixel."""
    cell = 16 if size.out_channels == 48 else 8
    block = {
        **weights("conv1", size.width, size.width, 3, 3),
        **weights("conv2", size.width, size.width, 3, 3),
    }
    return {
        **weights("control_adapter.conv", size.width, CAMERA_CHANNELS * cell**2, 2, 2),
        **numbered("control_adapter.residual_blocks", [block]),
    }


def vace(size: DiTSize, layers: int) -> Shapes:
    """The VACE module of a transformer; real ones have 15 (1.3B) and 8 (14B) layers."""
    block = dit_block(replace(size, has_image_branch=False))
    blocks = [{**block, **weights("after_proj", size.width, size.width)} for _ in range(layers)]
    blocks[0].update(weights("before_proj", size.width, size.width))
    return {
        **weights("vace_patch_embedding", size.width, VACE_CHANNELS, 1, 2, 2),
        **numbered("vace_blocks", blocks),
    }


def control_lora(size: DiTSize, *, in_channels: int = 32, rank: int = RANK) -> Shapes:
    """The factors of a LoRA for a wider patch embedding and all matrices of the blocks.

    Args:
        size: of the transformer it was trained on.
        in_channels: of the widened patch embedding.
        rank: of all factors.
    """
    factors: Shapes = {
        "patch_embedding.lora_A.weight": (rank, in_channels, 1, 2, 2),
        "patch_embedding.lora_B.weight": (size.width, rank, 1, 1, 1),
    }
    for key, shape in dit(size).items():
        if key.startswith("blocks.") and key.endswith(".weight") and len(shape) == 2:
            name = key.removesuffix(".weight")
            factors[f"{name}.lora_A.weight"] = (rank, shape[1])
            factors[f"{name}.lora_B.weight"] = (shape[0], rank)
    return prefixed("diffusion_model.", factors)


def uni3c(size: Uni3CSize) -> Shapes:
    """A Uni3C controlnet under the names of the repackaged file (Uni3C ``src/models/controlnet.py``)."""
    width, main = size.width, size.main_width
    block: Shapes = {}
    for name in ("norm1", "norm2"):
        block.update({**weights(f"{name}.linear", 3 * width, main), **norm(f"{name}.norm", width)})
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        block.update(weights(f"self_attn.{name}", width, width))
    block["self_attn.norm_q.weight"] = block["self_attn.norm_k.weight"] = (width,)
    block.update(weights("ffn.0", size.feed_forward, width))
    block.update(weights("ffn.2", width, size.feed_forward))
    return {
        **weights("controlnet_patch_embedding", main, size.in_channels, 1, 2, 2),
        **weights("controlnet_mask_embedding.mask_proj.0", size.mask_width, size.mask_channels, 4, 8, 8),
        **norm("controlnet_mask_embedding.mask_proj.1", size.mask_width),
        **weights("controlnet_mask_embedding.mask_zero_proj", main, size.mask_width, 1, 2, 2),
        **weights("proj_in", width, main),
        **numbered("controlnet_blocks", [block] * size.layers),
        **numbered("proj_out", [{"weight": (main, width), "bias": (main,)}] * size.layers),
    }
