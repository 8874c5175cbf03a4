"""A run on its device: what is loaded, streamed, set and put back."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.generation import GenerationRequest, generate
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions
from comfyui_wanvideo.wanvideo.weights.plan import MemoryPlan, spread_evenly
from comfyui_wanvideo.wanvideo.weights.residency import ModelResidency

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
BLOCKS = 4


class CopyingStreams:
    """A device whose memory is the host's and whose copies are done at once."""

    copied = 0

    def allocate(self, nbytes):
        return torch.empty(nbytes, dtype=torch.uint8)

    def copy(self, destination, source):
        self.copied += source.nbytes
        destination.copy_(source)

    def after_compute(self, event=None):
        return event

    after_copies = after_compute

    def copies_wait(self, event):
        pass

    compute_waits = copies_wait

    def host_wait(self):
        pass


class OnItsDevice(ModelResidency):
    """Loads to the copying device where ComfyUI, here without a GPU, says the CPU."""

    def load(self, device):
        return super().load(GPU)


@pytest.fixture
def model_run(node_module):
    return node_module("model_run")


@pytest.fixture
def model(load_model, host, manager):
    """A model on the copying device and the streams of it."""
    loaded = load_model()
    streams = CopyingStreams()
    transformer = loaded.transformer
    residency = OnItsDevice(
        transformer,
        list(transformer.blocks),
        embedders=[transformer.text_embedding],
        make_streams=lambda _device: streams,
    )
    managed = host.ManagedBlocks(residency, load_device=CPU, offload_device=CPU)
    manager.get_all_torch_devices = lambda *_, **__: [CPU]
    return replace(loaded, managed=managed), streams


@pytest.fixture
def planned(model_run, node_module):
    def make(model, *, streamed=0, force_offload=True, embedders_stay=True):
        placed = spread_evenly(streamed, BLOCKS)
        memory = MemoryPlan(BLOCKS, placed, min(2, streamed), tokens=32)
        plan = node_module("run_plan").RunPlan(memory, embedders_stay)
        return model_run.PlannedRun(model, plan, force_offload=force_offload)

    return make


def sample(model, run):
    """A short run of real numbers."""
    options = RunOptions(sdpa, walk=run.walk, on_prepared=run.on_prepared)
    request = GenerationRequest(
        geometry=VideoGeometry(64, 64, 5, 8),
        text=None,
        schedule=build_schedule("euler", 2, 5.0),
        steps=(0, 2),
        cfg=1.0,
        seed=3,
    )
    return run.compute(lambda: generate(model.transformer, request, options, device=CPU).latent)


@pytest.mark.parametrize("streamed", [1, 2, 3, 4])
def test_a_run_with_streamed_blocks_equals_a_resident_one_bit_for_bit(model, planned, streamed):
    loaded, _ = model
    resident = sample(loaded, planned(loaded))
    assert torch.equal(sample(loaded, planned(loaded, streamed=streamed)), resident)


def test_more_streamed_blocks_than_slots_are_copied_in_every_pass(model, planned):
    loaded, streams = model
    sample(loaded, planned(loaded, streamed=4))
    blocks = sum(tensor.nbytes for tensor in loaded.transformer.blocks.parameters())
    outside = sum(tensor.nbytes for tensor in loaded.transformer.parameters()) - blocks
    # Two steps of one pass each; the ring was filled with two blocks before the first.
    assert streams.copied == outside + (2 * BLOCKS + 2) * blocks // BLOCKS


def test_the_run_ends_off_the_device(model, planned):
    loaded, _ = model
    sample(loaded, planned(loaded, streamed=2))
    assert loaded.managed.loaded_size() == 0


def test_without_force_offload_the_model_stays(model, planned):
    loaded, _ = model
    sample(loaded, planned(loaded, force_offload=False))
    assert loaded.managed.loaded_size() > 0


def test_a_model_of_the_main_device_stays_in_spite_of_force_offload(model, planned):
    loaded, _ = model
    loaded = replace(loaded, memory=replace(loaded.memory, stays_on_device=True))
    sample(loaded, planned(loaded))
    assert loaded.managed.loaded_size() > 0


def test_under_highvram_the_model_stays(model, planned, manager):
    loaded, _ = model
    manager.vram_state = manager.VRAMState.HIGH_VRAM
    sample(loaded, planned(loaded))
    assert loaded.managed.loaded_size() > 0


def test_another_plan_needs_no_other_model(model, planned):
    loaded, _ = model
    sample(loaded, planned(loaded, force_offload=False))
    whole = loaded.managed.loaded_size()
    sample(loaded, planned(loaded, streamed=4, force_offload=False))
    assert 0 < loaded.managed.loaded_size() < whole


def test_loading_and_running_again_gives_the_same(model, planned):
    loaded, _ = model
    first = sample(loaded, planned(loaded, streamed=2))
    assert torch.equal(sample(loaded, planned(loaded, streamed=2)), first)


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_out_of_memory_becomes_a_sentence_with_the_plan_and_what_would_fit(model, model_run, planned):
    loaded, _ = model
    with pytest.raises(model_run.RanOutOfMemoryError) as error:
        planned(loaded, streamed=1).compute(out_of_memory)
    message = str(error.value)
    assert "3 blocks resident, 1 streamed" in message
    assert "blocks_to_swap" in message
    assert error.value.__context__ is None


def test_after_out_of_memory_the_model_is_off_the_device_and_runs_again(model, model_run, planned):
    loaded, _ = model
    expected = sample(loaded, planned(loaded))
    with pytest.raises(model_run.RanOutOfMemoryError):
        planned(loaded, streamed=2, force_offload=False).compute(out_of_memory)
    assert loaded.managed.loaded_size() == 0
    assert torch.equal(sample(loaded, planned(loaded, streamed=2)), expected)


def test_another_error_passes_and_the_model_leaves_the_device(model, planned):
    loaded, _ = model

    def fail():
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        planned(loaded).compute(fail)
    assert loaded.managed.loaded_size() == 0


def test_an_interrupt_passes_and_the_model_leaves_the_device(model, planned, manager):
    loaded, _ = model

    def stop():
        raise manager.InterruptProcessingException

    with pytest.raises(manager.InterruptProcessingException):
        planned(loaded, streamed=2).compute(stop)
    assert loaded.managed.loaded_size() == 0


def test_fp16_sums_are_switched_on_for_the_run_only(model, planned):
    loaded, _ = model
    switches = torch.backends.cuda.matmul
    if not hasattr(switches, "allow_fp16_accumulation"):
        pytest.skip("this PyTorch has no such switch")
    loaded = replace(loaded, sums_in_fp16=True)
    during = planned(loaded).compute(lambda: switches.allow_fp16_accumulation)
    assert during is True
    assert switches.allow_fp16_accumulation is False


@pytest.mark.parametrize("stay", [True, False])
def test_the_embedders_leave_when_the_run_is_prepared_if_the_plan_says_so(model, planned, stay):
    loaded, _ = model
    run = planned(loaded, embedders_stay=stay)

    def sizes():
        before = loaded.residency.resident_bytes
        run.on_prepared()
        return before - loaded.residency.resident_bytes

    assert (run.compute(sizes) == 0) is stay


def test_block_swap_debug_logs_what_streaming_did(model, node_module, planned, caplog):
    loaded, _ = model
    swap = node_module("memory_settings").BlockSwapSettings(block_swap_debug=True)
    loaded = replace(loaded, memory=replace(loaded.memory, block_swap=swap))
    with caplog.at_level("INFO"):
        sample(loaded, planned(loaded, streamed=2))
    assert "block swap: 2 passes, 2 blocks streamed in each" in caplog.text


def test_the_plan_is_logged_in_one_line(model, planned, caplog):
    loaded, _ = model
    with caplog.at_level("INFO"):
        sample(loaded, planned(loaded, streamed=2))
    (line,) = [record.message for record in caplog.records if "blocks resident" in record.message]
    assert line.startswith("tiny.safetensors: 32 tokens")
