"""Streaming on a real device."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.residency import ModelResidency

from .streamed_model import Net, streaming

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_cuda
@pytest.mark.parametrize("placement", [streaming(), streaming(1, 3, 5), streaming(*range(6)), streaming(2)])
def test_on_a_gpu_streamed_is_resident_bit_for_bit(placement):
    net = Net(width=512)
    residency = ModelResidency(net, list(net.blocks))
    x = torch.randn(64, 512, device="cuda")
    residency.load("cuda")
    expected = net.run(x, residency.walk)
    before = torch.cuda.memory_allocated()
    residency.apply(placement)
    residency.load("cuda")
    assert all(torch.equal(net.run(x, residency.walk), expected) for _ in range(10))
    residency.unload()
    del expected
    assert torch.cuda.memory_allocated() < before


@needs_cuda
def test_on_a_gpu_a_stopped_pass_leaves_the_ring_usable():
    net = Net(width=512)
    residency = ModelResidency(net, list(net.blocks))
    residency.apply(streaming(*range(6)))
    residency.load("cuda")
    x = torch.randn(64, 512, device="cuda")
    expected = net.run(x, residency.walk)
    blocks = residency.walk(list(net.blocks))
    next(blocks)
    blocks.close()
    assert torch.equal(net.run(x, residency.walk), expected)
