"""Attention on a real device: every library that is installed, and the ways around one that is not."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.backend import TokenLayout
from comfyui_wanvideo.wanvideo.attention.block_sparse import (
    TOLERANCES,
    attend_block_rows,
    block_sparse_attention,
)
from comfyui_wanvideo.wanvideo.attention.radial import radial_mask
from comfyui_wanvideo.wanvideo.attention.registry import BACKENDS, choose
from comfyui_wanvideo.wanvideo.attention.self_test import problem
from comfyui_wanvideo.wanvideo.attention.ultravico import attend_rows, ultravico_function

from .conftest import relative_error

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

DEVICE = torch.device("cuda", 0)
LAYOUT = TokenLayout((23, 15, 13))  # 4485 tokens: no multiple of any tile, longer than 21 frames


def inputs():
    return tuple(torch.randn(1, 4485, 4, 128, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", BACKENDS)
def test_an_installed_library_gives_the_right_numbers(name, dtype):
    backend = BACKENDS[name]
    reason = backend.supports(DEVICE, dtype, 128)
    if not backend.is_installed or reason is not None:
        pytest.skip(reason or f"{backend.package} is not installed")
    assert problem(backend, DEVICE, dtype) is None


def test_auto_finds_one():
    assert choose(DEVICE, torch.bfloat16) in BACKENDS


@pytest.mark.parametrize("block_size", [64, 128])
def test_radial_attention_equals_pytorch_per_block(block_size):
    q, k, v = inputs()
    mask = radial_mask(LAYOUT, 4485, 4485, decay_factor=0.2, block_size=block_size).to(DEVICE)
    way, _ = block_sparse_attention(DEVICE, torch.bfloat16)
    expected = attend_block_rows(q.float(), k.float(), v.float(), mask, block_size)
    assert relative_error(way(q, k, v, mask, block_size), expected) <= TOLERANCES.get(way.name, 0.02)


@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_ultravico_equals_pytorch_per_chunk(alpha):
    q, k, v = inputs()
    function, _ = ultravico_function(DEVICE, torch.bfloat16)
    expected = attend_rows(q.float(), k.float(), v.float(), LAYOUT, alpha, 21)
    assert relative_error(function(q, k, v, LAYOUT, alpha, 21), expected) <= 0.02
