"""The queues of a device."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.streams import CudaStreams, SynchronousStreams, streams_for

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU = torch.device("cpu")
SPIN_CYCLES = 50_000_000  # some tens of milliseconds


def test_a_device_without_streams_copies_at_once():
    streams = streams_for(CPU)
    assert isinstance(streams, SynchronousStreams)
    slot = streams.allocate(4)
    streams.copies_wait(streams.after_compute())
    streams.copy(slot, torch.arange(4, dtype=torch.uint8))
    streams.compute_waits(streams.after_copies())
    assert slot.tolist() == [0, 1, 2, 3]


def test_memory_may_be_written_in_and_out_of_inference_mode():
    with torch.inference_mode():
        slot = SynchronousStreams(CPU).allocate(4)
    slot.zero_()
    with torch.inference_mode():
        slot.fill_(1)
    assert slot.tolist() == [1, 1, 1, 1]


@needs_cuda
def test_on_a_gpu_a_copy_waits_for_the_computation_before_it():
    streams = CudaStreams(torch.device("cuda", 0))
    slot, source = streams.allocate(1 << 20), torch.full((1 << 20,), 7, dtype=torch.uint8).pin_memory()
    slot.zero_()
    torch.cuda._sleep(SPIN_CYCLES)
    seen = slot.clone()
    streams.copies_wait(streams.after_compute())
    streams.copy(slot, source)
    streams.host_wait()
    assert (int(seen.max()), int(slot.min())) == (0, 7)


@needs_cuda
def test_on_a_gpu_a_computation_waits_for_the_copy_before_it():
    streams = CudaStreams(torch.device("cuda", 0))
    slot, source = streams.allocate(1 << 28), torch.full((1 << 28,), 7, dtype=torch.uint8).pin_memory()
    event = None
    for _ in range(3):  # the event is used again
        slot.zero_()
        streams.copies_wait(streams.after_compute())
        streams.copy(slot, source)
        event = streams.after_copies(event)
        streams.compute_waits(event)
        assert int(slot.min()) == 7


@needs_cuda
def test_on_a_gpu_nothing_in_the_loop_waits():
    streams = CudaStreams(torch.device("cuda", 0))
    slot, source = streams.allocate(1 << 20), torch.zeros(1 << 20, dtype=torch.uint8).pin_memory()
    torch.cuda._sleep(20 * SPIN_CYCLES)
    event = streams.after_compute()
    streams.copies_wait(event)
    streams.copy(slot, source)
    streams.compute_waits(streams.after_copies())
    assert not event.query()
