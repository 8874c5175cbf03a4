"""Files and key lists the tests of this folder are made of."""

import struct
from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint, StoredTensor
from safetensors.torch import save, save_file

IMAGE_WIDTH, TEXT_WIDTH, FREQUENCIES = 1280, 4096, 256


def linear(shapes, name, out_features, in_features):
    shapes[f"{name}.weight"] = (out_features, in_features)
    shapes[f"{name}.bias"] = (out_features,)


def wan_shapes(dim=256, ffn=512, layers=2, cin=16, cout=16, *, image=False, flf=False):
    """Key -> shape of an official Wan transformer (names and shapes as in the released files)."""
    shapes = {"patch_embedding.weight": (dim, cin, 1, 2, 2), "patch_embedding.bias": (dim,)}
    linear(shapes, "text_embedding.0", dim, TEXT_WIDTH)
    linear(shapes, "text_embedding.2", dim, dim)
    linear(shapes, "time_embedding.0", dim, FREQUENCIES)
    linear(shapes, "time_embedding.2", dim, dim)
    linear(shapes, "time_projection.1", 6 * dim, dim)
    for block in range(layers):
        shapes.update(block_shapes(f"blocks.{block}", dim, ffn))
        if image:
            for name in ("k_img", "v_img"):
                linear(shapes, f"blocks.{block}.cross_attn.{name}", dim, dim)
            shapes[f"blocks.{block}.cross_attn.norm_k_img.weight"] = (dim,)
    if image:
        for index, width in ((0, IMAGE_WIDTH), (4, dim)):
            shapes[f"img_emb.proj.{index}.weight"] = shapes[f"img_emb.proj.{index}.bias"] = (width,)
        linear(shapes, "img_emb.proj.1", IMAGE_WIDTH, IMAGE_WIDTH)
        linear(shapes, "img_emb.proj.3", dim, IMAGE_WIDTH)
    if flf:
        shapes["img_emb.emb_pos"] = (1, 514, IMAGE_WIDTH)
    shapes["head.modulation"] = (1, 2, dim)
    linear(shapes, "head.head", 4 * cout, dim)
    return shapes


def block_shapes(prefix, dim, ffn):
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}.modulation": (1, 6, dim)}
    for attention in ("self_attn", "cross_attn"):
        for name in "qkvo":
            linear(shapes, f"{prefix}.{attention}.{name}", dim, dim)
        for name in ("norm_q", "norm_k"):
            shapes[f"{prefix}.{attention}.{name}.weight"] = (dim,)
    shapes[f"{prefix}.norm3.weight"] = shapes[f"{prefix}.norm3.bias"] = (dim,)
    linear(shapes, f"{prefix}.ffn.0", ffn, dim)
    linear(shapes, f"{prefix}.ffn.2", dim, ffn)
    return shapes


def vace_shapes(dim=256, ffn=512, layers=2):
    shapes = {"vace_patch_embedding.weight": (dim, 96, 1, 2, 2), "vace_patch_embedding.bias": (dim,)}
    for block in range(layers):
        shapes.update(block_shapes(f"vace_blocks.{block}", dim, ffn))
        linear(shapes, f"vace_blocks.{block}.after_proj", dim, dim)
    linear(shapes, "vace_blocks.0.before_proj", dim, dim)
    return shapes


def header_only(shapes, *, dtypes=None, metadata=None, name="model.safetensors"):
    """A checkpoint of which only the header exists: reading a tensor fails the test."""

    def never():
        raise AssertionError("a tensor was read")

    stored = {
        key: StoredTensor(tuple(shape), (dtypes or {}).get(key, torch.bfloat16), never)
        for key, shape in shapes.items()
    }
    return Checkpoint(Path(name), stored, metadata or {}, (Path(name),))


def random_tensors(shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in shapes.items()}


@pytest.fixture(scope="session")
def shapes_of():
    """Makers of key -> shape tables by name."""
    return {"wan": wan_shapes, "vace": vace_shapes}


@pytest.fixture(scope="session")
def make_header():
    return header_only


@pytest.fixture
def make_file(tmp_path):
    """Write tensors to a safetensors file and open it."""

    def make(tensors, name="model.safetensors", metadata=None):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / name, metadata)
        return Checkpoint.open(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def make_tensors():
    return random_tensors


@pytest.fixture(scope="session")
def small_file_bytes():
    """A valid safetensors file in memory, with the length of its header (including the 8 bytes)."""
    content = save(random_tensors({"a.weight": (4, 6), "a.bias": (4,), "b": (3, 5)}))
    return content, 8 + struct.unpack("<Q", content[:8])[0]
