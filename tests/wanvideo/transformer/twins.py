"""The same weights in the reference implementations."""

from typing import Any

import torch
from comfyui_wanvideo.wanvideo.weights.keys import to_diffusers


def diffusers_twin(model, kind: Any = None, **changes: Any) -> Any:
    """diffusers' transformer of the same weights.

    Args:
        model: ours.
        kind: its class; `WanTransformer3DModel` if not given.
        changes: further arguments of its constructor.
    """
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    c = model.config
    images = {"image_dim": c.image_width, "added_kv_proj_dim": c.dim} if c.has_image_branch else {}
    twin = (kind or WanTransformer3DModel)(
        num_attention_heads=c.heads,
        attention_head_dim=128,
        in_channels=c.in_channels,
        out_channels=c.out_channels,
        text_dim=c.text_width,
        freq_dim=c.frequency_width,
        ffn_dim=c.ffn_dim,
        num_layers=c.layers,
        **{**images, **changes},
    )
    twin.load_state_dict({to_diffusers(k): v for k, v in model.state_dict().items()}, strict=True)
    return twin.eval()


def comfy_twin(model, kind: Any = None, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """ComfyUI's transformer of the same weights.

    Args:
        model: ours.
        kind: its class; `WanModel` if not given.
        dtype: of its weights.
        changes: further arguments of its constructor.
    """
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    c = model.config
    if kind is None:
        changes.setdefault("model_type", "i2v" if c.has_image_branch else "t2v")
    twin = (kind or WanModel)(
        dim=c.dim,
        ffn_dim=c.ffn_dim,
        in_dim=c.in_channels,
        out_dim=c.out_channels,
        text_dim=c.text_width,
        num_heads=c.heads,
        num_layers=c.layers,
        operations=comfy.ops.disable_weight_init,
        dtype=dtype,
        device="cpu",
        **changes,
    )
    twin.load_state_dict(model.state_dict(), strict=True)
    return twin.eval()
