"""VACE blocks among those that are streamed, resident, evicted or idle."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.plan import Placement, spread_evenly
from comfyui_wanvideo.wanvideo.weights.residency import ModelResidency
from comfyui_wanvideo.wanvideo.weights.slab import Pinning
from comfyui_wanvideo.wanvideo.weights.streams import SynchronousStreams

from .conftest import FULL, context_of, evaluation, load, run_state, setup_of

DEVICE = torch.device("cuda", 0)
STAGES = 6  # four blocks of the model and two of VACE
SIDE_STAGES = frozenset({1, 4})
PINNED = Pinning(lambda _slab: True, lambda _slab: None)


class CountingStreams(SynchronousStreams):
    """A device whose memory is the host's; it counts the bytes copied into the ring."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.copied = 0

    def copy(self, destination, source):
        self.copied += source.nbytes
        super().copy(destination, source)


class Streamed:
    """A VACE model whose blocks are placed on a pretended device."""

    def __init__(self, path, streamed, slots=2):
        self.model = load(path)
        self.streams = CountingStreams()
        self.residency = ModelResidency(
            self.model,
            [stage.block for stage in self.model.stages()],
            embedders=self.model.embedders(),
            pin=PINNED,
            make_streams=lambda _device: self.streams,
        )
        self.residency.apply(Placement(STAGES, tuple(streamed), min(slots, len(streamed))))
        self.residency.load(DEVICE)
        self.streams.copied = 0

    def __call__(self, *contexts, check=lambda: None):
        run = run_state(walk=self.residency.walk, check=check)
        return evaluation()(self.model, *contexts, run=run)


@pytest.fixture
def path(tiny):
    return tiny / f"{FULL}.safetensors"


@pytest.fixture
def context(model):
    return context_of().prepared(setup_of(model))


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("streamed", [(1, 4), (1,), (0, 2, 3, 5), tuple(range(6)), spread_evenly(3, 6)])
def test_streamed_is_resident_bit_for_bit(model, path, context, streamed, slots):
    expected = evaluation()(model, context)
    run = Streamed(path, streamed, slots)
    assert torch.equal(run(context), expected)
    assert torch.equal(run(context), expected)


def test_a_slot_has_room_for_the_larger_kind_of_block(path):
    run = Streamed(path, range(STAGES))
    sizes = run.residency.block_bytes
    assert sizes[1] > sizes[0]
    placed = run.residency.resident_bytes - run.residency.rest_bytes - run.residency.embedder_bytes
    assert placed == 2 * max(sizes)


def test_idle_steps_copy_no_block_of_vace(path, model):
    run = Streamed(path, range(STAGES))
    own = sum(run.residency.block_bytes[index] for index in range(STAGES) if index not in SIDE_STAGES)
    run()  # the ring may hold what the last pass guessed
    run.streams.copied = 0
    idle = [run() for _ in range(3)]
    assert run.streams.copied == 3 * own
    assert torch.equal(idle[0], evaluation()(model))


def test_steps_with_and_without_it_take_turns(path, model, context):
    run, one = Streamed(path, range(STAGES)), evaluation()
    for _ in range(2):
        assert torch.equal(run(context), one(model, context))
        assert torch.equal(run(), one(model))


@pytest.mark.parametrize("at", range(STAGES))
def test_eviction_in_the_middle_of_a_forward_changes_nothing(path, model, context, at):
    run, stages = Streamed(path, (0, 3)), iter(range(STAGES))

    def evict():
        if next(stages, None) == at:
            assert run.residency.free(sum(run.residency.block_bytes)) > 0

    assert torch.equal(run(context, check=evict), evaluation()(model, context))
    assert torch.equal(run(context), evaluation()(model, context))


def test_a_context_with_several_inputs_copies_each_block_once(path, context):
    run = Streamed(path, range(STAGES))
    run(context)
    run.streams.copied = 0
    run(context, context)
    assert run.streams.copied == sum(run.residency.block_bytes)


def placed_without_vace(path, streamed=()):
    run = Streamed(path, ())
    run.residency.apply(Placement(STAGES, streamed, min(2, len(streamed)), SIDE_STAGES))
    run.residency.load(DEVICE)
    return run


@pytest.mark.parametrize("streamed", [(), (0, 3)])
def test_a_run_without_vace_has_none_of_its_blocks_on_the_device(path, streamed):
    run = placed_without_vace(path, streamed)
    sizes = run.residency.block_bytes
    kept = sum(size for place, size in enumerate(sizes) if place not in {*streamed, *SIDE_STAGES})
    ring = min(2, len(streamed)) * sizes[0]
    outside = run.residency.rest_bytes + run.residency.embedder_bytes
    assert run.residency.resident_bytes == outside + kept + ring


@pytest.mark.parametrize("streamed", [(), (0, 3)])
def test_a_run_without_vace_is_that_of_the_model_without_it(path, plain, streamed):
    assert torch.equal(placed_without_vace(path, streamed)(), evaluation()(plain))


def test_the_blocks_come_back_for_a_run_with_vace(model, path, context):
    run = placed_without_vace(path)
    run.residency.apply(Placement(STAGES))
    run.residency.load(DEVICE)
    assert torch.equal(run(context), evaluation()(model, context))
