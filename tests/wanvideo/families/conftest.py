"""What the tests of several families share."""

from pathlib import Path

from comfyui_wanvideo.wanvideo.families.family import Family
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.detect import ModelSpec


def extended(model: WanTransformer, family: Family) -> WanTransformer:
    """The model with a family that brings no weights of its own: it is given an empty file."""
    spec = ModelSpec(model.config, capabilities=frozenset(), dtypes=frozenset())
    family.extend(model, Checkpoint(Path("empty.safetensors"), {}, {}, ()), spec)
    return model
