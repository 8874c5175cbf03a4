"""Key names and shapes of the CLIP image encoder (ViT-H/14), in Wan's layout and in that of transformers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .specs import Shapes, norm, numbered, prefixed, weights


@dataclass(frozen=True)
class VisionSize:
    """Sizes of an image encoder; the real one has 32 layers and `feed_forward` 5120.

    Args:
        width: 1280, which the image branch of a transformer takes.
        layers: blocks; all but the last one count.
        feed_forward: inner width of the feed-forward.
        patch: pixels of a side of a patch.
        image: pixels of a side of the picture.
        out: width of the projection to texts, which Wan does not use.
    """

    width: int = 1280
    layers: int = 2
    feed_forward: int = 128
    patch: int = 14
    image: int = 224
    out: int = 1024


def vision(size: VisionSize) -> Shapes:
    """The image encoder in Wan's file (open-clip-xlm-roberta-large-vit-huge-14)."""
    width = size.width
    block: Shapes = {
        **norm("norm1", width),
        **weights("attn.to_qkv", 3 * width, width),
        **weights("attn.proj", width, width),
        **norm("norm2", width),
        **weights("mlp.0", size.feed_forward, width),
        **weights("mlp.2", width, size.feed_forward),
    }
    tower: Shapes = {
        "cls_embedding": (1, 1, width),
        "pos_embedding": (1, (size.image // size.patch) ** 2 + 1, width),
        "patch_embedding.weight": (width, 3, size.patch, size.patch),
        **norm("pre_norm", width),
        **numbered("transformer", [block] * size.layers),
        **norm("post_norm", width),
        "head": (width, size.out),
    }
    return {"log_scale": (), **prefixed("visual.", tower)}


_HF_NAMES = {
    "visual.patch_embedding": "embeddings.patch_embedding",
    "visual.pre_norm": "pre_layrnorm",  # transformers spells it so
    "visual.post_norm": "post_layernorm",
}
_HF_NAMES_IN_A_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def to_hf(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same encoder under the names of transformers and of ComfyUI's clip_vision_h."""
    renamed: dict[str, Tensor] = {
        "vision_model.embeddings.class_embedding": tensors["visual.cls_embedding"].flatten(),
        "vision_model.embeddings.position_embedding.weight": tensors["visual.pos_embedding"][0],
        "visual_projection.weight": tensors["visual.head"].T.contiguous(),
    }
    for key, tensor in tensors.items():
        module, _, leaf = key.rpartition(".")
        if module in _HF_NAMES:
            renamed[f"vision_model.{_HF_NAMES[module]}.{leaf}"] = tensor
        elif module.startswith("visual.transformer."):
            number, in_block = module.removeprefix("visual.transformer.").split(".", 1)
            place = f"vision_model.encoder.layers.{number}"
            if in_block == "attn.to_qkv":
                for name, part in zip("qkv", torch.chunk(tensor, 3), strict=True):
                    renamed[f"{place}.self_attn.{name}_proj.{leaf}"] = part.clone()
            else:
                renamed[f"{place}.{_HF_NAMES_IN_A_BLOCK[in_block]}.{leaf}"] = tensor
    return renamed
