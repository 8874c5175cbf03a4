"""The deprecated node gives what its successors give."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.clip import ClipEmbeds

from .test_image_to_video import RELATIVE_ERROR, difference, encode, nodes, pictures, vae

__all__ = ["encode", "nodes", "vae"]  # fixtures


def clip_vision(width: int = 1280):
    """An encoder as core's nodes know it, and the pictures it was given."""
    seen = []

    def encode_image(image, crop=True):
        seen.append((image, crop))
        return SimpleNamespace(penultimate_hidden_states=torch.ones(len(image), 257, width))

    return SimpleNamespace(encode_image=encode_image, patcher=None, seen=seen)


@pytest.fixture
def old_node(nodes, vae):
    def run(**inputs):
        values = {
            "clip_vision": clip_vision(),
            "image": pictures(),
            "vae": vae,
            "generation_width": 48,
            "generation_height": 32,
            "num_frames": 9,
        }
        return nodes.WanVideoImageClipEncode.execute(**{**values, **inputs})[0]

    return run


def test_the_deprecated_node_gives_what_the_new_ones_give(old_node, encode):
    found = old_node()
    expected = encode(start_image=pictures(), clip_embeds=ClipEmbeds(torch.ones(1, 257, 1280)))
    assert torch.equal(found.inputs["image"].latent.values, expected.inputs["image"].latent.values)
    assert torch.equal(found.inputs["clip"].rows, expected.inputs["clip"].rows)
    assert found.geometry == expected.geometry


def test_the_deprecated_node_keeps_the_shape_of_the_picture(old_node):
    wide = old_node(image=pictures(height=32, width=128), generation_width=64, generation_height=64).geometry
    assert (wide.width, wide.height) == (128, 32)


def test_the_deprecated_node_takes_the_size_as_it_is_when_told(old_node):
    square = old_node(
        image=pictures(width=128), generation_width=64, generation_height=64, adjust_resolution=False
    )
    assert (square.geometry.width, square.geometry.height) == (64, 64)


def test_the_old_latent_strength_is_the_contrast_of_the_picture(old_node, encode):
    found = old_node(latent_strength=0.5).inputs["image"].latent.values
    expected = encode(start_image=0.5 + 0.5 * (pictures() - 0.5)).inputs["image"].latent.values
    assert difference(found, expected) < RELATIVE_ERROR


def test_the_old_clip_strength_is_a_factor_on_the_rows(old_node):
    assert old_node(clip_embed_strength=0.25).inputs["clip"].rows.unique().tolist() == [0.25]
