"""How weights and a run share memory: ComfyUI's memory manager with an imaginary GPU of 10 GB."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.generation import RunSize
from comfyui_wanvideo.wanvideo.weights.plan import MemoryRequest, NotEnoughMemoryError
from comfyui_wanvideo.wanvideo.weights.residency import ModelResidency

GPU, CPU = torch.device("meta"), torch.device("cpu")
GIGABYTE = 10**9
BLOCKS = 4  # of the tiny model
SMALL, LARGE = VideoGeometry(64, 64, 5, 8), VideoGeometry(1280, 720, 81, 8)


class Claimed(ModelResidency):
    """Weights that claim a size."""

    block_gigabytes = 1.0

    @property
    def block_bytes(self):
        return (int(self.block_gigabytes * GIGABYTE),) * BLOCKS

    @property
    def embedder_bytes(self):
        return int(self.block_gigabytes * GIGABYTE / 2)

    @property
    def rest_bytes(self):
        return GIGABYTE // 100


class Evictable:
    """Another model of 8 GB."""

    def __init__(self):
        self.module = torch.nn.Linear(2, 2)
        self.total_bytes = 8 * GIGABYTE
        self.resident_bytes = 0

    def load(self, device):
        self.resident_bytes = self.total_bytes

    def unload(self):
        self.resident_bytes = 0


def request_of(*, blocks, free, **values):
    """Blocks of a gigabyte and activations of one."""
    return MemoryRequest(
        free_bytes=int(free * GIGABYTE),
        block_bytes=(GIGABYTE,) * blocks,
        rest_bytes=0,
        activation=lambda _chunks: GIGABYTE,
        row_chunks=1,
        tokens=10,
        **values,
    )


@pytest.fixture
def run_plan(node_module):
    return node_module("run_plan")


@pytest.fixture
def model(load_model, node_module, host):
    """Makes a model of four blocks of so many gigabytes each."""

    def make(block_gigabytes, *, device=GPU, **swap):
        loaded = load_model()
        residency = Claimed(loaded.transformer, list(loaded.transformer.blocks))
        residency.block_gigabytes = block_gigabytes
        managed = host.ManagedBlocks(residency, load_device=device, offload_device=CPU)
        settings = node_module("memory_settings")
        memory = settings.MemorySettings(settings.BlockSwapSettings(**swap))
        return replace(loaded, managed=managed, memory=memory)

    return make


def plan(run_plan, model, geometry=SMALL):
    return run_plan.plan_run(model, RunSize(geometry.tokens, 0, geometry.frames), rope_function="comfy")


def test_what_fits_is_resident(run_plan, manager, model):
    found = plan(run_plan, model(1.0))
    assert found.memory.streamed == ()
    assert found.embedders_stay


def test_what_does_not_fit_is_streamed(run_plan, manager, model):
    found = plan(run_plan, model(3.0))
    assert len(found.memory.streamed) > 0
    assert found.memory.device_bytes <= 10 * GIGABYTE


@pytest.mark.parametrize(("free", "stay"), [(10.4, True), (10.1, False)])
def test_the_embedders_leave_before_a_block_does(run_plan, free, stay):
    request = request_of(blocks=8, free=free, embedder_bytes=GIGABYTE // 2)
    found = run_plan.first_that_fits(request, ("auto",), embedders_may_stay=True)
    assert found.memory.streamed == ()
    assert found.embedders_stay is stay


def test_embedders_that_would_need_finer_row_chunks_leave_without_a_warning(run_plan, caplog):
    request = request_of(blocks=8, free=4.0, embedder_bytes=GIGABYTE // 2, mode="stream")
    found = run_plan.first_that_fits(request, ("stream",), embedders_may_stay=True)
    assert not found.embedders_stay
    assert caplog.text == ""


@pytest.mark.parametrize("swap", [{"offload_txt_emb": True}, {"offload_img_emb": True}])
def test_the_embedders_leave_when_that_was_asked_for(run_plan, manager, model, swap):
    assert not plan(run_plan, model(1.0, **swap)).embedders_stay


def test_blocks_to_swap_is_the_least_that_is_streamed(run_plan, manager, model):
    found = plan(run_plan, model(1.0, blocks_to_swap=2, prefetch_blocks=1)).memory
    assert (len(found.streamed), found.slots) == (2, 2)


def test_prefetched_blocks_have_slots(run_plan, manager, model):
    assert plan(run_plan, model(1.0, memory_mode="stream", prefetch_blocks=2)).memory.slots == 3


def test_memory_mode_resident_that_does_not_fit_is_refused_with_the_plan(run_plan, manager, model):
    with pytest.raises(NotEnoughMemoryError, match="4 blocks resident"):
        plan(run_plan, model(3.0, memory_mode="resident"))


def test_what_does_not_fit_even_streamed_is_refused_with_the_plan_and_what_would_fit(
    run_plan, manager, model
):
    with pytest.raises(NotEnoughMemoryError) as error:
        plan(run_plan, model(12.0), LARGE)
    message = str(error.value)
    assert "75,600 tokens" in message
    assert "4 streamed" in message
    assert "fewer bits" in message


@pytest.mark.parametrize("state", ["LOW_VRAM", "NO_VRAM"])
def test_lowvram_streams_everything(run_plan, manager, model, monkeypatch, state):
    monkeypatch.setattr(manager, "vram_state", manager.VRAMState[state])
    assert len(plan(run_plan, model(1.0)).memory.streamed) == BLOCKS


@pytest.mark.parametrize(("gigabytes", "streams"), [(1.0, False), (3.0, True)])
def test_highvram_streams_only_what_does_not_fit(run_plan, manager, model, monkeypatch, gigabytes, streams):
    monkeypatch.setattr(manager, "vram_state", manager.VRAMState.HIGH_VRAM)
    assert bool(plan(run_plan, model(gigabytes)).memory.streamed) is streams


def test_a_large_video_takes_room_from_the_weights(run_plan, manager, model):
    small, large = plan(run_plan, model(1.9)), plan(run_plan, model(1.9), LARGE)
    assert large.memory.activation_bytes > small.memory.activation_bytes
    assert large.memory.row_chunks > small.memory.row_chunks == 1


def test_another_model_makes_room_before_blocks_are_streamed(run_plan, host, manager, model):
    other = host.ManagedModel(Evictable(), load_device=GPU, offload_device=CPU)
    host.load(other)
    assert plan(run_plan, model(2.0)).memory.streamed == ()
    assert other.loaded_size() == 0


def test_on_the_cpu_nothing_is_streamed_whatever_is_asked_for(run_plan, manager, model):
    found = plan(run_plan, model(30.0, device=CPU, memory_mode="stream"))
    assert found.memory.streamed == ()


def test_a_model_that_comes_before_its_run_leaves_room_for_one(run_plan, manager, model):
    found = run_plan.plan_loading(model(2.4)).memory
    assert found.streamed != ()
    assert found.weight_bytes < 10 * GIGABYTE


def test_a_mode_that_does_not_fit_gives_way_to_the_next(run_plan):
    request = request_of(blocks=8, free=5)
    found = run_plan.first_that_fits(request, ("resident", "auto"), embedders_may_stay=True)
    assert len(found.memory.streamed) > 0


def test_attention_that_takes_all_queries_at_once_is_planned_with_whole_blocks(run_plan, manager, model):
    chunked, whole = model(0.1), model(0.1)
    whole = replace(whole, attention_mode="radial_sage_attention")
    found = [plan(run_plan, each, LARGE).memory for each in (chunked, whole)]
    assert found[0].row_chunks == found[1].row_chunks > 1
    assert found[1].activation_bytes > 1.3 * found[0].activation_bytes
