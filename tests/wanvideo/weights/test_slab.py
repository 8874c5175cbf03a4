"""Tensors of any kind in one buffer, and pinned buffers."""

import logging

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.slab import (
    ALIGNMENT,
    CUDA_PINNING,
    PAGE_BYTES,
    PinnedSlabs,
    Pinning,
    SlabLayout,
    TensorGroup,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.uint8,
    torch.int8,
    torch.int32,
    torch.bool,
]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    values = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    tensor = values.to(draw(st.sampled_from(DTYPES)))
    order = draw(st.permutations(range(len(shape))))
    kind = draw(st.sampled_from(["permuted", "every second", "repeated"]))
    if kind == "every second" and shape:
        return tensor[..., ::2]
    if kind == "repeated":
        return tensor.unsqueeze(0).expand(3, *shape)
    return tensor.permute(order)


@given(st.lists(tensors(), max_size=5))
def test_what_is_filled_in_is_seen_in_the_views(group):
    layout = SlabLayout.of(group)
    buffer = torch.full((layout.total_bytes,), 255, dtype=torch.uint8)
    layout.fill(buffer, group)
    views = layout.views(buffer)
    assert [(view.shape, view.dtype) for view in views] == [(t.shape, t.dtype) for t in group]
    assert all(torch.equal(view.float(), t.float()) for view, t in zip(views, group, strict=True))


@given(st.lists(tensors(), max_size=5))
def test_tensors_are_aligned_and_apart(group):
    layout = SlabLayout.of(group)
    ends = [0, *(entry.offset + entry.nbytes for entry in layout.entries)]
    assert all(entry.offset % ALIGNMENT == 0 for entry in layout.entries)
    assert all(entry.offset >= end for entry, end in zip(layout.entries, ends, strict=False))
    assert layout.total_bytes >= ends[-1]
    assert layout.total_bytes < ends[-1] + ALIGNMENT


def test_dense_tensors_keep_their_strides():
    tensor = torch.zeros(3, 4, 5).permute(2, 0, 1)
    (view,) = SlabLayout.of([tensor]).views(torch.zeros(256, dtype=torch.uint8))
    assert view.stride() == tensor.stride()


def test_blocks_of_one_kind_have_equal_layouts():
    assert SlabLayout.of([torch.zeros(3, 4)]) == SlabLayout.of([torch.ones(3, 4)])
    assert SlabLayout.of([torch.zeros(3, 4)]) != SlabLayout.of([torch.zeros(4, 3)])


def test_masters_on_another_device_are_refused():
    with pytest.raises(ValueError, match="meta"):
        TensorGroup([torch.zeros(2, device="meta")])


def test_a_group_points_its_parameters_there_and_back():
    parameter = nn.Parameter(torch.zeros(2), requires_grad=False)
    group, value = TensorGroup([parameter]), torch.ones(2)
    before = parameter.data_ptr()
    group.point_to([value])
    pointed = parameter.data_ptr()
    group.point_to_masters()
    assert (pointed, parameter.data_ptr()) == (value.data_ptr(), before)


def group_of(nbytes):
    return TensorGroup([torch.arange(nbytes, dtype=torch.uint8)])


def pinning(*, refuse=lambda _slab: False):
    """Pinning, and the addresses that are pinned."""
    pinned = {}

    def pin(slab):
        if refuse(slab):
            return False
        pinned[slab.data_ptr()] = slab.nbytes
        return True

    return Pinning(pin, lambda slab: pinned.pop(slab.data_ptr())), pinned


@pytest.mark.parametrize("nbytes", [1, 200, 4096, 5000])
def test_a_slab_has_whole_pages_to_itself_and_at_most_two_spare(nbytes):
    slab = PinnedSlabs(pinning()[0]).get(0, group_of(nbytes))
    assert slab is not None
    storage = slab.untyped_storage()
    assert slab.data_ptr() % PAGE_BYTES == 0
    assert (
        storage.data_ptr() + storage.nbytes() >= slab.data_ptr() + -(-slab.nbytes // PAGE_BYTES) * PAGE_BYTES
    )
    assert storage.nbytes() <= slab.nbytes + 2 * PAGE_BYTES


def test_a_slab_is_made_once_and_holds_the_weights():
    slabs, group = PinnedSlabs(pinning()[0]), group_of(100)
    slab = slabs.get(3, group)
    assert slab is slabs.get(3, group)
    assert slab is not None
    assert torch.equal(group.layout.views(slab)[0], group.masters[0])


def test_closing_unpins_everything():
    how, pinned = pinning()
    slabs = PinnedSlabs(how)
    for index in range(3):
        slabs.get(index, group_of(100))
    assert (len(pinned), slabs.nbytes) == (3, 3 * 256)
    slabs.close()
    assert (pinned, slabs.nbytes) == ({}, 0)


def test_refused_pinning_is_tried_again_when_allowed():
    refused = [True]
    slabs = PinnedSlabs(pinning(refuse=lambda _slab: bool(refused and refused.pop()))[0])
    assert slabs.get(0, group_of(10)) is None
    assert slabs.get(0, group_of(10)) is None
    slabs.allow()
    assert slabs.get(0, group_of(10)) is not None


def test_host_memory_that_is_used_up_is_as_refused_pinning(monkeypatch, caplog):
    def full(*_sizes, **_options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    slabs, group = PinnedSlabs(pinning()[0], name="Wan"), group_of(10)
    monkeypatch.setattr(torch, "empty", full)
    with caplog.at_level(logging.WARNING):
        assert slabs.get(0, group) is None
    assert caplog.messages[0].startswith("Wan: pinning another 0.0 MB of host memory was refused")


def test_an_interrupted_fill_unpins_the_slab(monkeypatch):
    how, pinned = pinning()
    slabs, group = PinnedSlabs(how), group_of(10)

    def interrupt(*_tensors):
        raise KeyboardInterrupt

    monkeypatch.setattr(SlabLayout, "fill", interrupt)
    with pytest.raises(KeyboardInterrupt):
        slabs.get(0, group)
    assert (pinned, slabs.nbytes) == ({}, 0)


def test_slabs_are_released_in_the_order_given():
    slabs = PinnedSlabs(pinning()[0])
    for index in range(3):
        slabs.get(index, group_of(100))
    assert slabs.release(257, [2, 0, 1]) == 512
    assert [index in slabs for index in range(3)] == [False, True, False]
    assert not slabs.may_make(0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_nothing_is_pinned_without_cuda():
    assert CUDA_PINNING.pin(torch.zeros(8, dtype=torch.uint8)) is False


@needs_cuda
def test_on_a_gpu_memory_is_pinned_and_unpinned():
    slabs, group = PinnedSlabs(), group_of(5000)
    slab = slabs.get(0, group)
    assert slab is not None
    assert slab.is_pinned()
    slabs.close()
    assert not slab.is_pinned()


@needs_cuda
def test_on_a_gpu_refused_pinning_does_not_fail_the_next_kernel():
    slab = torch.zeros(PAGE_BYTES, dtype=torch.uint8)
    assert CUDA_PINNING.pin(slab)
    assert not CUDA_PINNING.pin(slab)
    assert float(torch.ones(2, device="cuda").sum()) == 2
    CUDA_PINNING.unpin(slab)
