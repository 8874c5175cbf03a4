"""A model in parts: rest, embedders, blocks that stay and blocks that pass through."""

import gc
import logging
import mmap

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.plan import Placement
from comfyui_wanvideo.wanvideo.weights.residency import ModelResidency
from comfyui_wanvideo.wanvideo.weights.slab import Pinning
from comfyui_wanvideo.wanvideo.weights.streamer import PassEnded
from comfyui_wanvideo.wanvideo.weights.streams import SynchronousStreams
from torch._dynamo.testing import CompileCounter

from .fake_streams import FakeStreams
from .streamed_model import DEVICE, Net, Run, streaming, tensors

CPU = torch.device("cpu")
PINNED = Pinning(lambda _slab: True, lambda _slab: None)


def on_host(net, **options):
    """A device whose memory is the host's and whose queues are the host's."""
    return ModelResidency(
        net, list(net.blocks), make_streams=lambda _device: SynchronousStreams(CPU), **options
    )


@pytest.mark.parametrize("placement", [streaming(), streaming(1, 3, 5), streaming(*range(6)), streaming(2)])
@pytest.mark.parametrize("pin", [PINNED, Pinning(lambda _slab: False, lambda _slab: None)])
def test_streamed_is_resident_bit_for_bit(placement, pin):
    net, x = Net(), torch.randn(3, 16)
    residency = on_host(net, pin=pin)
    expected = net.run(x, residency.walk)
    residency.apply(placement)
    residency.load(DEVICE)
    assert torch.equal(net.run(x, residency.walk), expected)
    assert torch.equal(net.run(x, residency.walk), expected)


@pytest.mark.parametrize("entered", [False, True])
def test_inference_mode_may_come_and_go(entered):
    net, x = Net(), torch.ones(16)
    residency = on_host(net, pin=PINNED)
    expected = net.run(x, residency.walk)
    residency.apply(streaming(0, 2, 4))
    with torch.inference_mode(entered):
        residency.load(DEVICE)
    with torch.inference_mode(not entered):
        first = net.run(x, residency.walk)
    with torch.inference_mode(entered):
        second = net.run(x, residency.walk)
        residency.unload()
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)


def test_load_unload_load_gives_the_same_result():
    net, x = Net(), torch.ones(16)
    residency = on_host(net, pin=PINNED)
    residency.apply(streaming(1, 4))
    results = []
    for _ in range(2):
        residency.load(DEVICE)
        results.append(net.run(x, residency.walk))
        residency.unload()
    assert torch.equal(*results)


def test_on_the_cpu_the_blocks_come_in_order_and_nothing_is_copied():
    run = Run(streamed=6)
    run.residency.load("cpu")
    assert [index for index, _ in run.residency.walk(list(run.model.blocks), {2})] == [0, 1, 3, 4, 5]
    assert (run.streams.copies, run.residency.resident_bytes, run.is_at_masters()) == (0, 0, True)


@pytest.mark.parametrize("streamed", [0, 1, 3, 6])
def test_resident_bytes_are_the_bytes_on_the_device(streamed):
    run = Run(streamed=streamed).load()
    run.walk()
    assert run.residency.resident_bytes == run.streams.live_bytes == run.residency.planned_bytes


def test_the_ring_counts_once_per_slot():
    run = Run(streamed=5).load()
    rest = run.residency.rest_bytes + run.residency.embedder_bytes
    assert run.residency.resident_bytes == rest + 3 * run.residency.block_bytes[0]


def test_total_bytes_are_those_of_everything_resident():
    run = Run(streamed=0).load()
    assert run.residency.resident_bytes == run.residency.total_bytes


def test_unloading_frees_device_and_pinned_memory():
    run = Run(streamed=5).load()
    run.walk()
    held = run.residency.resident_bytes
    assert run.residency.pinned_bytes == 5 * run.residency.block_bytes[0]
    assert run.residency.unload() == held
    assert (run.streams.live_bytes, run.residency.resident_bytes, run.residency.pinned_bytes) == (0, 0, 0)


def first_pointer(run, index):
    return tensors(run.model.blocks[index])[0].data_ptr()


def test_another_plan_moves_only_the_difference():
    run = Run(streamed=2).load()
    run.place(3)
    held = {i: first_pointer(run, i) for i in range(6)}
    run.residency.apply(Placement(6, (1, 3, 4), 2))
    assert run.residency.load(DEVICE) == 0
    assert {i for i in range(6) if first_pointer(run, i) == held[i]} >= {0, 2, 5}
    run.residency.apply(Placement(6, (1, 4), 2))
    assert run.residency.load(DEVICE) == run.residency.block_bytes[3]
    run.walk()
    assert run.finished() == []


def test_loading_again_copies_nothing():
    run = Run(streamed=3).load()
    before = run.streams.copies
    assert run.residency.load(DEVICE) == 0
    assert run.streams.copies == before


def test_a_block_that_becomes_resident_gives_back_its_pinned_memory():
    run = Run(streamed=6).load()
    run.walk()
    run.place(0)
    run.load()
    assert run.residency.pinned_bytes == 0
    assert run.finished() == []


def test_a_load_that_moves_blocks_ends_the_pass():
    run = Run(streamed=3).load()
    blocks = run.residency.walk(list(run.model.blocks))
    assert [next(blocks)[0], next(blocks)[0]] == [0, 1]  # 1 is in a slot and becomes resident
    run.residency.apply(Placement(6, (0, 2, 4), 2))
    run.load()
    with pytest.raises(PassEnded, match="unloaded or taken"):
        next(blocks)
    run.walk()
    assert run.finished() == []


def test_an_unload_ends_the_pass():
    run = Run(streamed=3).load()
    blocks = run.residency.walk(list(run.model.blocks))
    next(blocks)
    run.residency.unload()
    with pytest.raises(PassEnded, match="unloaded or taken"):
        next(blocks)
    assert run.is_at_masters()


def test_a_plan_for_another_model_is_refused():
    with pytest.raises(ValueError, match="7 blocks for 6"):
        Run().residency.apply(Placement(7))


def test_a_failed_load_leaves_nothing_behind():
    run = Run(streamed=3)
    run.streams.room = run.residency.planned_bytes - 1
    with pytest.raises(torch.OutOfMemoryError):
        run.residency.load(DEVICE)
    assert (run.residency.resident_bytes, run.streams.live_bytes, run.is_at_masters()) == (0, 0, True)


@pytest.mark.parametrize("streamed", [0, 3, 5])
@pytest.mark.parametrize("blocks", [0.5, 1, 2, 20])
def test_freeing_gives_what_was_asked_for_or_all_there_is(streamed, blocks):
    run = Run((8,) * 12, streamed=streamed).load()
    size = run.residency.block_bytes[0]
    before, wanted = run.residency.resident_bytes, int(blocks * size)
    available = 12 * size - streamed * size + min(streamed, 2) * size - 2 * size
    freed = run.residency.free(wanted)
    assert freed == before - run.residency.resident_bytes == before - run.streams.live_bytes
    assert min(wanted, available) <= freed <= wanted + size
    run.walk()
    assert run.finished() == []


def test_no_ring_is_made_that_would_not_free_memory():
    run = Run((8, 8), streamed=0).load()
    before = run.residency.resident_bytes
    assert run.residency.free(100) == 0
    assert (run.residency.resident_bytes, run.residency.streamed) == (before, frozenset())


def test_freed_blocks_are_spread():
    run = Run((8,) * 12, streamed=0).load()
    run.residency.free(run.residency.block_bytes[0])
    assert run.residency.streamed == {2, 6, 10}


def test_more_freed_blocks_are_far_from_those_streamed():
    run = Run((8,) * 12, streamed=3).load()
    assert run.residency.streamed == {2, 6, 10}
    run.residency.free(3 * run.residency.block_bytes[0])
    assert run.residency.streamed == {0, 2, 4, 6, 8, 10}


@pytest.mark.parametrize("streamed", [0, 3])
@pytest.mark.parametrize("at", range(6))
def test_memory_is_freed_within_a_pass_without_the_block_in_use(streamed, at):
    run = Run(streamed=streamed).load()
    kept = []

    def free(index):
        if index == at:
            before = tensors(run.model.blocks[at])[0].data_ptr()
            assert run.residency.free(10**6) > 0
            kept.append(tensors(run.model.blocks[at])[0].data_ptr() == before)

    assert run.walk(in_block=free) == list(range(6))
    run.walk()
    assert kept == [True]
    assert run.finished() == []


def test_a_block_larger_than_the_slots_is_not_freed():
    run = Run((8, 8, 8, 40, 8, 8), streamed=0)
    run.residency.apply(Placement(6, (0, 2, 4), 2))
    run.load()
    run.residency.free(10**6)
    assert run.residency.streamed == {0, 1, 2, 4, 5}


def test_freed_blocks_come_back_with_the_next_load():
    run = Run(streamed=3).load()
    run.residency.free(1)
    run.load()
    assert run.residency.streamed == {1, 3, 5}
    assert run.residency.resident_bytes == run.residency.planned_bytes


def test_nothing_is_freed_of_a_model_that_is_not_loaded():
    assert Run().residency.free(10) == 0


def test_embedders_are_dropped_and_come_back():
    run = Run(streamed=2).load()
    before = run.residency.resident_bytes
    assert run.residency.drop_embedders() == run.residency.embedder_bytes > 0
    assert run.residency.resident_bytes == before - run.residency.embedder_bytes
    assert run.residency.load(DEVICE) == run.residency.embedder_bytes
    assert run.residency.resident_bytes == before


def test_embedders_may_come_back_while_a_pass_runs():
    run = Run(streamed=3).load()
    run.residency.drop_embedders()

    def reload(_index):
        run.load()

    assert run.walk(in_block=reload) == list(range(6))


def test_pinned_memory_is_released_until_the_next_load():
    run = Run(streamed=6).load()
    run.walk()
    size = run.residency.block_bytes[0]
    assert run.residency.release_pinned(size + 1) == 2 * size
    run.walk()
    assert run.residency.pinned_bytes == 4 * size
    run.load().walk()
    assert run.residency.pinned_bytes == 6 * size
    assert run.finished() == []


def test_refused_pinning_is_said_once_with_the_bytes(caplog):
    run = Run((20_000,) * 6, streamed=6, budget=1_000_000)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            run.load().walk()
    (message,) = caplog.messages
    assert "Model: pinning another 0.5 MB of host memory was refused after 0.9 MB" in message


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_the_masters_are_only_read(tmp_path):
    net, x = Net(), torch.ones(16)
    expected = net.run(x, lambda blocks, _skip: enumerate(blocks))
    map_read_only(net, tmp_path / "weights")  # writing to them would end the process
    residency = on_host(net, pin=PINNED)
    residency.apply(streaming(0, 2, 4))
    residency.load(DEVICE)
    assert torch.equal(net.run(x, residency.walk), expected)
    residency.unload()
    assert torch.equal(net.run(x, residency.walk), expected)


def map_read_only(net, path):
    """Let the weights of a module be views on a file that is mapped for reading only."""
    path.write_bytes(b"".join(bytes(t.view(torch.uint8).numpy().reshape(-1)) for t in net.parameters()))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    whole, start = torch.frombuffer(mapped, dtype=torch.float32), 0
    for parameter in net.parameters():
        parameter.data = whole[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()


def test_a_tensor_of_two_blocks_stays_with_the_rest():
    net = Net()
    net.blocks[0].bias = net.blocks[3].bias
    residency = on_host(net, pin=PINNED)
    before = on_host(Net()).rest_bytes
    assert residency.rest_bytes == before + 256  # the bias, aligned
    residency.apply(streaming(*range(6)))
    residency.load(DEVICE)
    expected = Net()
    expected.blocks[0].bias = expected.blocks[3].bias
    walk = on_host(expected).walk
    assert torch.equal(net.run(torch.ones(16), residency.walk), expected.run(torch.ones(16), walk))


def test_streaming_does_not_recompile():
    net, counter = Net(), CompileCounter()
    residency = on_host(net, pin=PINNED)
    torch._dynamo.reset()
    compiled = torch.compile(lambda block, x: block(x), backend=counter, dynamic=False)
    for placement in (streaming(), streaming(1, 3, 5), streaming(*range(6), slots=3), streaming(0, 2, 4)):
        residency.apply(placement)
        residency.load(DEVICE)
        for _ in range(2):
            for _index, block in residency.walk(list(net.blocks)):
                compiled(block, torch.ones(16))
    assert counter.frame_count == 1


def test_dropping_the_model_waits_for_copies_and_frees_the_ring():
    streams = FakeStreams()
    run = Run(streamed=6, streams=streams).load()
    del run
    gc.collect()
    assert (streams.waits, streams.live_bytes, streams.violations) == (1, 0, [])
