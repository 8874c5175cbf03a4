"""The order of copies and computations in the ring, on a device of which every legal order is tried."""

import contextlib
import gc
import random
import weakref

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.slab import PinnedSlabs, TensorGroup
from comfyui_wanvideo.wanvideo.weights.streamer import BlockStreamer, PassEnded
from hypothesis import given, settings
from hypothesis import strategies as st

from .fake_streams import SCHEDULES, FakeStreams
from .streamed_model import Model, Run, tensors


class Stop(Exception):
    pass


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("streamed", [0, 1, 2, 3, 5, 6])
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_every_block_computes_with_its_weights(schedule, streamed, slots):
    run = Run(streamed=streamed, slots=slots, streams=FakeStreams(schedule)).load()
    seen = [run.walk() for _ in range(3)]
    assert seen == [[0, 1, 2, 3, 4, 5]] * 3
    assert run.finished() == []


@pytest.mark.parametrize("budget", [0, 400, 900])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_blocks_that_are_not_pinned_compute_with_their_weights(schedule, budget):
    run = Run(budget=budget, streams=FakeStreams(schedule)).load()
    for _ in range(3):
        run.walk()
    assert run.residency.pinned_bytes <= budget
    assert run.finished() == []


@pytest.mark.parametrize("forgotten", ["copies_wait", "compute_waits"])
def test_a_missing_wait_is_noticed(forgotten):
    streams = FakeStreams("copies first" if forgotten == "copies_wait" else "compute first")
    setattr(streams, forgotten, lambda event: None)
    run = Run(streams=streams).load()
    run.walk()
    assert any("while" in problem for problem in run.finished())
    assert any("other weights" in problem for problem in run.finished())


def test_memory_given_back_during_a_copy_is_noticed():
    streams = FakeStreams()
    streams.host_wait = lambda: None
    run = Run(streams=streams).load()
    run.walk()
    run.residency.unload()
    assert any("given back while it may be copied" in problem for problem in streams.violations)


def test_a_host_wait_in_the_loop_is_noticed():
    run = Run().load()
    run.walk(in_block=lambda _index: run.streams.host_wait())
    assert "the host waited in the loop" in run.streams.violations


@pytest.mark.parametrize("budget", [None, 0])
def test_each_streamed_block_is_copied_once_per_pass(budget):
    run = Run(streamed=3, budget=budget).load()
    run.walk()
    before = run.streams.copied_bytes
    run.walk()
    size = run.residency.block_bytes[0] if budget is None else sum(t.nbytes for t in run.masters[0])
    assert run.streams.copied_bytes - before == 3 * size


@pytest.mark.parametrize("budget", [None, 0])
def test_a_copy_goes_into_the_slot_that_was_released_first(budget):
    """The other one may still be read by the computations just queued: the copy would wait for them."""
    run = Run(streamed=6, slots=2, budget=budget).load()
    filled = []
    copy = run.streams.copy

    def watched(destination, source):
        filled.append(destination.untyped_storage().data_ptr())
        copy(destination, source)

    run.streams.copy = watched
    for _ in range(2):
        run.walk()
    order = [slot for slot, before in zip(filled, [None, *filled], strict=False) if slot != before]
    assert len(order) == 2 * 6
    assert len(set(order)) == 2


def test_a_pinned_block_is_one_copy():
    run = Run(streamed=3).load()
    run.walk()
    before = run.streams.copies
    run.walk()
    assert run.streams.copies - before == 3


def test_the_next_pass_starts_with_blocks_in_their_slots():
    run = Run(streamed=3).load()
    run.walk()
    before = run.streams.copies
    blocks = run.residency.walk(list(run.model.blocks))
    assert [next(blocks)[0], next(blocks)[0]] == [0, 1]
    blocks.close()
    assert run.streams.copies == before


def test_a_ring_as_large_as_the_streamed_blocks_copies_each_once():
    run = Run(streamed=2).load()
    before = run.streams.copies
    run.walk()
    run.walk()
    assert run.streams.copies == before


def copies_during_a_pass(run):
    """Copies queued since the pass began, at the time of each block."""
    run.walk()  # fills the slabs
    before, counts = run.streams.copies, []
    run.walk(in_block=lambda _index: counts.append(run.streams.copies - before))
    return counts


def test_the_next_copy_is_queued_when_a_slot_is_free():
    run = Run(streamed=3).load()
    assert run.residency.streamed == {1, 3, 5}
    # 1 and 3 came with the pass before; 5 follows 1 into its slot, then come 1 and 3 of the next pass
    assert copies_during_a_pass(run) == [0, 0, 1, 1, 2, 2]


def test_a_pageable_copy_is_queued_after_the_block_that_hides_it():
    run = Run(streamed=3, budget=0).load()
    per_block = len(run.masters[0])
    assert copies_during_a_pass(run) == [count * per_block for count in (0, 0, 0, 1, 1, 2)]


@pytest.mark.parametrize("skip", [{0}, {1}, {5}, {0, 1, 2}, {4, 5}, {0, 1, 2, 3, 4, 5}])
def test_skipped_blocks_are_never_uploaded(skip):
    run = Run(streamed=6)
    run.load()
    run.walk(skip)
    before = run.streams.copies
    assert run.walk(skip) == [index for index in range(6) if index not in skip]
    used = 6 - len(skip)
    assert run.streams.copies - before == (used if used > 2 else 0)
    assert run.finished() == []


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_passes_with_other_skips_may_alternate(schedule):
    run = Run(streamed=5, streams=FakeStreams(schedule)).load()
    for skip in ((), {0, 1}, (), {2}, {5}, (), {0, 2, 4}):
        run.walk(skip)
    assert run.finished() == []


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, GeneratorExit])
def test_a_stopped_pass_leaves_the_ring_usable(at, error):
    run = Run(streamed=4).load()

    def stop(index):
        if index == at:
            raise error

    with pytest.raises(error):
        run.walk(in_block=stop)
    run.walk()
    assert run.finished() == []


def test_a_stopped_pass_points_the_weights_to_the_masters():
    run = Run(streamed=6).load()
    with pytest.raises(Stop):
        run.walk(in_block=lambda _index: (_ for _ in ()).throw(Stop))
    assert run.is_at_masters()


def test_a_pass_that_is_dropped_ends():
    run = Run(streamed=6).load()
    blocks = run.residency.walk(list(run.model.blocks))
    next(blocks)
    del blocks
    gc.collect()
    assert run.is_at_masters()
    assert run.walk() == list(range(6))


@pytest.mark.parametrize("copies", [0, 1, 4, 7])
@pytest.mark.parametrize("then", [(), {0, 1}, {1, 2}, {2, 3}])
def test_an_interrupted_copy_leaves_the_ring_usable(copies, then):
    run = Run(streamed=6, budget=0).load()
    run.streams.fail_in = copies
    with pytest.raises(KeyboardInterrupt):
        run.walk()
    run.walk(then)
    assert run.finished() == []


def test_a_new_pass_takes_over_from_one_that_waits():
    run = Run(streamed=6).load()
    first = run.residency.walk(list(run.model.blocks))
    next(first)
    run.walk()
    with pytest.raises(PassEnded, match="another pass"):
        next(first)
    assert run.finished() == []


def test_nothing_is_copied_back():
    run = Run(streamed=6).load()
    blocks = run.residency.walk(list(run.model.blocks))
    next(blocks)
    run.streams.drain()
    tensors(run.model.blocks[0])[0].zero_()
    blocks.close()
    assert run.is_at_masters()


def test_the_parameter_objects_stay_the_same():
    run = Run(streamed=3)
    before = [id(tensor) for tensor in tensors(run.model)]
    run.load().walk(in_block=lambda index: None)
    assert [id(tensor) for tensor in tensors(run.model)] == before


def test_a_block_comes_with_its_dtypes_shapes_and_strides():
    run = Run(streamed=6).load()
    wanted = [(t.dtype, t.shape, t.stride()) for t in run.residency._blocks[2].group.masters]
    found = []

    def look(index):
        if index == 2:
            found.extend((t.dtype, t.shape, t.stride()) for t in tensors(run.model.blocks[2]))

    run.walk(in_block=look)
    assert found == wanted


def test_blocks_of_different_sizes_share_slots_of_the_largest_streamed():
    run = Run(widths=(8, 40, 8, 16, 8, 24), streamed=3).load()
    sizes = run.residency.block_bytes
    ring = run.residency.resident_bytes - run.residency.rest_bytes - run.residency.embedder_bytes
    assert ring == sizes[0] + sizes[2] + sizes[4] + 2 * max(sizes[1], sizes[3], sizes[5])
    run.walk()
    run.walk()
    assert run.finished() == []


def test_dropping_the_streamer_waits_for_the_copies():
    streams = FakeStreams()
    groups = [TensorGroup(tensors(block)) for block in Model().blocks]
    streamer = BlockStreamer(groups, streams=streams, slabs=PinnedSlabs(streams.pinning()))
    streamer.place(range(6), 2)
    streamer.prefetch()
    gone = weakref.ref(streamer)
    del streamer
    gc.collect()
    assert gone() is None
    assert (streams.waits, streams.live_bytes, streams.violations) == (1, 0, [])


def test_closing_twice_is_closing_once():
    streams = FakeStreams()
    groups = [TensorGroup(tensors(block)) for block in Model().blocks]
    streamer = BlockStreamer(groups, streams=streams, slabs=PinnedSlabs(streams.pinning()))
    streamer.place([0, 3], 1)
    streamer.close()
    streamer.close()
    assert (streamer.device_bytes, streams.violations) == (0, [])


def test_no_room_for_the_ring_leaves_no_ring():
    streams = FakeStreams()
    groups = [TensorGroup(tensors(block)) for block in Model().blocks]
    streamer = BlockStreamer(groups, streams=streams, slabs=PinnedSlabs(streams.pinning()))
    streams.room = groups[0].layout.total_bytes
    with pytest.raises(torch.OutOfMemoryError):
        streamer.place(range(6), 2)
    assert (streamer.device_bytes, streamer.streamed) == (0, frozenset())


@settings(max_examples=120)
@given(seed=st.integers(0, 10**9), schedule=st.sampled_from(SCHEDULES))
def test_any_sequence_of_passes_changes_and_demands_is_safe(seed, schedule):
    choose = random.Random(seed)
    streams = FakeStreams(schedule, seed)
    widths = choose.choice([(8,) * 6, (8, 16, 8, 24, 8), (8,) * 11])
    run = Run(
        widths, choose.randint(0, len(widths)), budget=choose.choice([None, None, 0, 1500]), streams=streams
    )
    run.load()
    for _ in range(choose.randint(1, 8)):
        change(run, choose)
    run.load().walk()
    run.residency.unload()
    assert run.finished() == []
    assert streams.live_bytes == 0
    assert run.is_at_masters()


def change(run, choose):
    """One thing that happens to a model between or within passes."""
    action = choose.choice(["walk", "walk", "walk", "place", "free", "unload", "pinned", "embedders"])
    if action == "walk":
        disturbed_pass(run, choose)
    elif action == "place":
        run.place(choose.randint(0, len(run.masters)), choose.randint(1, 3))
        run.load()
    elif action == "free":
        run.residency.free(choose.randint(0, 2000))
    elif action == "unload":
        run.residency.unload()
        run.load()
    elif action == "pinned":
        run.residency.release_pinned(choose.randint(0, 2000))
    else:
        run.residency.drop_embedders()


def disturbed_pass(run, choose):
    """A pass that may skip blocks, be interrupted, or lose memory or weights on its way."""
    skip = {index for index in range(len(run.masters)) if choose.random() < choose.choice([0, 0.3])}
    at = choose.randrange(2 * len(run.masters))
    event = choose.choice(["raise", "free", "pinned", "unload", "place", "interrupt a copy"])

    def disturb(index):
        if index != at:
            return
        run.streams.in_loop = event not in ("pinned", "unload", "place")
        if event == "raise":
            raise Stop
        if event == "free":
            run.residency.free(choose.randint(1, 3000))
        elif event == "pinned":
            run.residency.release_pinned(choose.randint(1, 2000))
        elif event == "unload":
            run.residency.unload()
        elif event == "place":
            run.place(choose.randint(0, len(run.masters)), choose.randint(1, 3))
            run.load()
        else:
            run.streams.fail_in = choose.randint(0, 12)
        run.streams.in_loop = True

    with contextlib.suppress(Stop, KeyboardInterrupt, PassEnded):
        run.walk(skip, in_block=disturb)
    run.streams.fail_in = None
    run.load()
