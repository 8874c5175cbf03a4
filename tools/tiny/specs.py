"""Key names and shapes of Wan's model files, as functions of a few sizes.

Names are those of the official releases (Wan2.1 `wan/modules`). Head width of the transformer is always 128.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class DiTSize:
    """Sizes of a video transformer; the defaults make 4 M parameters.

    Args:
        width: a multiple of 128 (1.3B: 1536, 14B: 5120).
        feed_forward: inner width of the feed-forward (8960, 13824).
        layers: blocks (30, 40).
        text_width: width of the text encoder (4096).
        in_channels: latent channels plus those of image conditions.
        out_channels: latent channels.
        has_image_branch: cross-attention has keys and values for CLIP image tokens (Wan 2.1 I2V).
        image_width: width of the CLIP image encoder.
    """

    width: int = 256
    feed_forward: int = 512
    layers: int = 4
    text_width: int = 256
    in_channels: int = 16
    out_channels: int = 16
    has_image_branch: bool = False
    image_width: int = 1280


@dataclass(frozen=True)
class UMT5Size:
    """Sizes of a text encoder; umt5-xxl: 256384, 4096, 4096, 64, 10240, 24."""

    vocabulary: int = 1024
    width: int = 256
    attention_width: int = 256
    heads: int = 4
    feed_forward: int = 512
    layers: int = 2
    buckets: int = 32


@dataclass(frozen=True)
class VAESize:
    """Sizes of a Wan 2.1 VAE; the real one has `base` 96."""

    base: int = 16
    latent_channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    halves_time: tuple[bool, ...] = (False, True, True)


def dit(size: DiTSize) -> Shapes:
    """A transformer for text and, by its input channels and its image branch, an image."""
    width = size.width
    shapes: Shapes = {
        **weights("patch_embedding", width, size.in_channels, 1, 2, 2),
        **weights("text_embedding.0", width, size.text_width),
        **weights("text_embedding.2", width, width),
        **weights("time_embedding.0", width, 256),
        **weights("time_embedding.2", width, width),
        **weights("time_projection.1", 6 * width, width),
    }
    for number in range(size.layers):
        shapes.update(prefixed(f"blocks.{number}.", dit_block(size)))
    shapes["head.modulation"] = (1, 2, width)
    shapes.update(weights("head.head", 4 * size.out_channels, width))
    return {**shapes, **_image_projection(size)} if size.has_image_branch else shapes


def umt5(size: UMT5Size) -> Shapes:
    """A text encoder under official names."""
    width = size.width
    shapes: Shapes = {"token_embedding.weight": (size.vocabulary, width), "norm.weight": (width,)}
    for number in range(size.layers):
        block: Shapes = {
            "norm1.weight": (width,),
            **{f"attn.{name}.weight": (size.attention_width, width) for name in "qkv"},
            "attn.o.weight": (width, size.attention_width),
            "norm2.weight": (width,),
            "ffn.gate.0.weight": (size.feed_forward, width),
            "ffn.fc1.weight": (size.feed_forward, width),
            "ffn.fc2.weight": (width, size.feed_forward),
            "pos_embedding.embedding.weight": (size.buckets, size.heads),
        }
        shapes.update(prefixed(f"blocks.{number}.", block))
    return shapes


def umt5_hf_name(key: str) -> str:
    """The name of a text encoder tensor in transformers' and ComfyUI's files."""
    top_level = {"token_embedding": "shared", "norm": "encoder.final_layer_norm"}
    path, _, leaf = key.rpartition(".")
    if path in top_level:
        return f"{top_level[path]}.{leaf}"
    _, number, *rest = key.split(".")
    inside = {
        "norm1": "layer.0.layer_norm",
        "attn.q": "layer.0.SelfAttention.q",
        "attn.k": "layer.0.SelfAttention.k",
        "attn.v": "layer.0.SelfAttention.v",
        "attn.o": "layer.0.SelfAttention.o",
        "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
        "norm2": "layer.1.layer_norm",
        "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
        "ffn.fc1": "layer.1.DenseReluDense.wi_1",
        "ffn.fc2": "layer.1.DenseReluDense.wo",
    }[".".join(rest[:-1])]
    return f"encoder.block.{number}.{inside}.{rest[-1]}"


def wan21_vae(size: VAESize) -> Shapes:
    """The Wan 2.1 VAE, encoder and decoder."""
    latent = size.latent_channels
    widths = [size.base, *(size.base * multiplier for multiplier in size.multipliers)]
    return {
        **prefixed("encoder.", _vae_encoder(size, widths)),
        **weights("conv1", 2 * latent, 2 * latent, 1, 1, 1),
        **weights("conv2", latent, latent, 1, 1, 1),
        **prefixed("decoder.", _vae_decoder(size, widths)),
    }


def dit_block(size: DiTSize) -> Shapes:
    """One block of a transformer."""
    width = size.width
    shapes: Shapes = {"modulation": (1, 6, width)}
    for attention in ("self_attn", "cross_attn"):
        for name in "qkvo":
            shapes.update(weights(f"{attention}.{name}", width, width))
        shapes[f"{attention}.norm_q.weight"] = shapes[f"{attention}.norm_k.weight"] = (width,)
    if size.has_image_branch:
        shapes.update(weights("cross_attn.k_img", width, width))
        shapes.update(weights("cross_attn.v_img", width, width))
        shapes["cross_attn.norm_k_img.weight"] = (width,)
    shapes["norm3.weight"] = shapes["norm3.bias"] = (width,)
    shapes.update(weights("ffn.0", size.feed_forward, width))
    shapes.update(weights("ffn.2", width, size.feed_forward))
    return shapes


def _image_projection(size: DiTSize) -> Shapes:
    return {
        **norm("img_emb.proj.0", size.image_width),
        **weights("img_emb.proj.1", size.image_width, size.image_width),
        **weights("img_emb.proj.3", size.width, size.image_width),
        **norm("img_emb.proj.4", size.width),
    }


def _vae_encoder(size: VAESize, widths: list[int]) -> Shapes:
    layers: list[Shapes] = []
    for level, (narrow, wide) in enumerate(itertools.pairwise(widths)):
        layers.append(residual_block(narrow, wide))
        layers += [residual_block(wide, wide)] * (size.residual_blocks - 1)
        if level < len(size.halves_time):
            layers.append(resampler(wide, wide, time_channels=wide if size.halves_time[level] else 0))
    return {
        **weights("conv1", widths[0], 3, 3, 3, 3),
        **numbered("downsamples", layers),
        **vae_middle(widths[-1]),
        "head.0.gamma": (widths[-1], 1, 1, 1),
        **weights("head.2", 2 * size.latent_channels, widths[-1], 3, 3, 3),
    }


def _vae_decoder(size: VAESize, widths: list[int]) -> Shapes:
    outward = widths[:0:-1]
    doubles_time = size.halves_time[::-1]
    layers: list[Shapes] = []
    incoming = outward[0]
    for level, width in enumerate(outward):
        layers.append(residual_block(incoming, width))
        layers += [residual_block(width, width)] * size.residual_blocks
        if level < len(doubles_time):
            incoming = width // 2  # the upsampler halves the channels
            layers.append(resampler(incoming, width, time_channels=2 * width if doubles_time[level] else 0))
    return {
        **weights("conv1", outward[0], size.latent_channels, 3, 3, 3),
        **vae_middle(outward[0]),
        **numbered("upsamples", layers),
        "head.0.gamma": (outward[-1], 1, 1, 1),
        **weights("head.2", 3, outward[-1], 3, 3, 3),
    }


def vae_middle(width: int) -> Shapes:
    """The middle of an encoder or decoder: attention between two blocks."""
    attention: Shapes = {
        "norm.gamma": (width, 1, 1),
        **weights("to_qkv", 3 * width, width, 1, 1),
        **weights("proj", width, width, 1, 1),
    }
    return numbered("middle", [residual_block(width, width), attention, residual_block(width, width)])


def residual_block(incoming: int, outgoing: int) -> Shapes:
    """One block of a VAE."""
    shapes: Shapes = {
        "residual.0.gamma": (incoming, 1, 1, 1),
        **weights("residual.2", outgoing, incoming, 3, 3, 3),
        "residual.3.gamma": (outgoing, 1, 1, 1),
        **weights("residual.6", outgoing, outgoing, 3, 3, 3),
    }
    if incoming != outgoing:
        shapes.update(weights("shortcut", outgoing, incoming, 1, 1, 1))
    return shapes


def resampler(outgoing: int, incoming: int, *, time_channels: int) -> Shapes:
    """A change of size by two; `time_channels` of the convolution over time, 0 without one."""
    shapes = weights("resample.1", outgoing, incoming, 3, 3)
    if time_channels:
        shapes.update(weights("time_conv", time_channels, incoming, 3, 1, 1))
    return shapes


def weights(name: str, *shape: int) -> Shapes:
    """A weight of this shape and a bias of its first dimension."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def norm(name: str, width: int) -> Shapes:
    """A norm with weight and bias."""
    return weights(name, width)


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    """The same shapes under longer names."""
    return {prefix + key: shape for key, shape in shapes.items()}


def numbered(name: str, layers: list[Shapes]) -> Shapes:
    """Layers under ``name.0``, ``name.1``, ..."""
    joined: Shapes = {}
    for number, layer in enumerate(layers):
        joined.update(prefixed(f"{name}.{number}.", layer))
    return joined
