"""The plan of a run's memory: rules for any sizes, and the figures of Wan 14B."""

import logging
from dataclasses import replace

import pytest
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.weights.device_speed import block_seconds, device_speed
from comfyui_wanvideo.wanvideo.weights.plan import (
    MemoryPlan,
    MemoryRequest,
    NotEnoughMemoryError,
    Placement,
    plan_memory,
    spread_evenly,
)
from hypothesis import assume, given
from hypothesis import strategies as st

GB = 1_000_000_000
DIM, FFN_DIM, BLOCKS = 5120, 13824, 40
TOKENS_480P, TOKENS_720P = 32_760, 75_600  # 81 frames
BLOCK_VALUES = 8 * DIM * DIM + 2 * DIM * FFN_DIM
BYTES_PER_VALUE = {"bf16": 2.0, "fp8": 1.0, "q4": 4.5 / 8}
ROWS_16 = 3.63  # U at 16 row chunks; one U is tokens x dim x 2 bytes


def activation(tokens, units=ROWS_16):
    return lambda _row_chunks: int(units * tokens * DIM * 2)


def wan_14b(tokens=TOKENS_480P, free=24 * GB, storage="bf16", **changes):
    """The assumptions of the table: 0.48 GB outside the blocks, 1.5 GB for context and workspace."""
    size = int(BLOCK_VALUES * BYTES_PER_VALUE[storage])
    request = MemoryRequest(
        free_bytes=free,
        block_bytes=(size,) * BLOCKS,
        rest_bytes=int(0.48 * GB),
        activation=activation(tokens, 3.6),
        row_chunks=16,
        tokens=tokens,
        workspace_bytes=int(1.5 * GB),
        headroom_bytes=0,
    )
    return replace(request, **changes)


@st.composite
def requests(draw):
    sizes = draw(st.lists(st.integers(0, 50), min_size=1, max_size=50))
    per_chunk = draw(st.integers(0, 2000))
    return MemoryRequest(
        free_bytes=draw(st.integers(0, 4000)),
        block_bytes=tuple(sizes),
        rest_bytes=draw(st.integers(0, 100)),
        activation=lambda chunks: per_chunk // chunks,
        row_chunks=draw(st.integers(1, 8)),
        tokens=draw(st.integers(1, 100_000)),
        embedder_bytes=draw(st.integers(0, 100)),
        embedders_stay=draw(st.booleans()),
        branches=draw(st.integers(1, 2)),
        minimum_streamed=draw(st.integers(0, 60)),
        idle=draw(st.frozensets(st.integers(0, len(sizes) - 1), max_size=len(sizes) // 3)),
        lora_bytes_per_block=draw(st.integers(0, 5)),
        workspace_bytes=draw(st.integers(0, 50)),
        headroom_bytes=draw(st.integers(0, 50)),
        slots=draw(st.integers(1, 3)),
        compute_seconds=draw(st.floats(0, 2)),
        copy_seconds=draw(st.floats(0, 2)),
    )


def plan_or_none(request):
    try:
        return plan_memory(request)
    except NotEnoughMemoryError:
        return None


def plan_that_fits(request):
    plan = plan_or_none(request)
    assume(plan is not None)
    assert plan is not None
    return plan


@given(requests())
def test_a_plan_stays_within_the_budget(request):
    plan = plan_that_fits(request)
    assert plan.device_bytes + request.headroom_bytes <= request.free_bytes


@given(requests())
def test_what_is_refused_is_larger_than_the_budget(request):
    assume(plan_or_none(request) is None)
    with pytest.raises(NotEnoughMemoryError) as caught:
        plan_memory(request)
    assert caught.value.plan.device_bytes + request.headroom_bytes > request.free_bytes


@given(requests(), st.integers(0, 1000))
def test_more_memory_never_means_more_stall_or_fewer_resident_blocks(request, more):
    plan = plan_that_fits(request)
    richer = plan_memory(replace(request, free_bytes=request.free_bytes + more))
    assert richer.stall_seconds <= plan.stall_seconds
    assert len(richer.resident) >= len(plan.resident)


@given(requests())
def test_the_same_request_gives_the_same_plan(request):
    assert plan_or_none(request) == plan_or_none(request)


@given(requests())
def test_at_least_the_minimum_is_streamed(request):
    plan = plan_that_fits(request)
    assert len(plan.streamed) >= min(request.minimum_streamed, len(request.used))


@given(blocks=st.integers(1, 80), share=st.floats(0, 1))
def test_streamed_blocks_have_even_distances_on_the_circle(blocks, share):
    count = int(share * blocks)
    streamed = spread_evenly(count, blocks)
    assert len(set(streamed)) == count
    assert set(streamed) <= set(range(blocks))
    gaps = {(b - a - 1) % blocks + 1 for a, b in zip(streamed, streamed[1:] + streamed[:1], strict=True)}
    assert gaps <= {blocks // max(count, 1), -(-blocks // max(count, 1))}


def test_nothing_is_streamed_when_everything_fits():
    plan = plan_memory(wan_14b(free=48 * GB))
    assert (plan.streamed, plan.slots, plan.stall_seconds) == ((), 0, 0)


@pytest.mark.parametrize(
    ("free", "tokens", "storage", "resident"),
    [
        (6, TOKENS_480P, "bf16", 2),
        (6, TOKENS_480P, "fp8", 6),
        (6, TOKENS_480P, "q4", 12),
        (6, TOKENS_720P, "fp8", 1),
        (6, TOKENS_720P, "q4", 4),
        (8, TOKENS_480P, "bf16", 4),
        (8, TOKENS_480P, "fp8", 11),
        (8, TOKENS_480P, "q4", 22),
        (8, TOKENS_720P, "bf16", 2),
        (8, TOKENS_720P, "fp8", 7),
        (8, TOKENS_720P, "q4", 14),
        (12, TOKENS_480P, "bf16", 10),
        (12, TOKENS_480P, "fp8", 23),
        (12, TOKENS_480P, "q4", 40),
        (12, TOKENS_720P, "bf16", 8),
        (12, TOKENS_720P, "fp8", 18),
        (12, TOKENS_720P, "q4", 34),
        (16, TOKENS_480P, "bf16", 16),
        (16, TOKENS_480P, "fp8", 34),
        (16, TOKENS_720P, "bf16", 13),
        (16, TOKENS_720P, "fp8", 29),
        (16, TOKENS_720P, "q4", 40),
        (24, TOKENS_480P, "bf16", 27),
        (24, TOKENS_480P, "fp8", 40),
        (24, TOKENS_720P, "bf16", 25),
        (24, TOKENS_720P, "fp8", 40),
        (32, TOKENS_480P, "bf16", 40),
        (32, TOKENS_720P, "bf16", 36),
    ],
)
def test_blocks_resident_by_card_and_format_within_two(free, tokens, storage, resident):
    plan = plan_memory(wan_14b(tokens, free * GB, storage))
    assert abs(len(plan.resident) - resident) <= 2
    assert plan.row_chunks == 16


def test_720p_in_bf16_on_6_gb_needs_a_ring_of_one_slot():
    assert plan_memory(wan_14b(TOKENS_720P, 6 * GB)).slots == 1


@pytest.mark.parametrize(("tokens", "gigabytes"), [(TOKENS_480P, 3.1), (TOKENS_720P, 4.7)])
def test_14b_in_bf16_all_streamed_is_as_small_as_it_should_be(tokens, gigabytes):
    plan = plan_memory(wan_14b(tokens, mode="stream", activation=activation(tokens), workspace_bytes=0))
    assert plan.device_bytes / GB == pytest.approx(gigabytes, abs=0.05)


def test_streaming_every_block_of_14b_is_expected_to_cost_nothing():
    speed = device_speed((8, 9))
    request = wan_14b(
        mode="stream",
        compute_seconds=block_seconds(WanConfig(DIM, FFN_DIM, 40, 40, 16, 16), TOKENS_480P, speed),
        copy_seconds=BLOCK_VALUES * 2 / speed.copy_rate,
    )
    assert plan_memory(request).stall_seconds == 0


def test_what_compute_does_not_hide_is_the_expected_stall():
    request = wan_14b(mode="stream", compute_seconds=0.01, copy_seconds=0.028)
    assert plan_memory(request).stall_seconds == pytest.approx(40 * 0.028 - 40 * 0.01)


def test_a_ring_that_holds_every_streamed_block_costs_nothing():
    request = wan_14b(free=80 * GB, minimum_streamed=2, compute_seconds=0.0001, copy_seconds=1.0)
    assert plan_memory(request).stall_seconds == 0


def test_a_single_slot_cannot_be_filled_while_its_block_computes():
    request = wan_14b(mode="stream", slots=1, compute_seconds=1.0, copy_seconds=0.028)
    assert plan_memory(request).stall_seconds == pytest.approx(40 * 0.028)


def test_the_line_for_the_log():
    plan = plan_memory(wan_14b(activation=activation(TOKENS_480P), row_chunks=8))
    assert str(plan) == (
        "32,760 tokens, activations 1.2 GB in 8 row chunks, 27 blocks resident, 13 streamed (2 slots), "
        "23.6 GB on the device, expected stall 0 ms"
    )


def test_blocks_to_swap_is_the_minimum_streamed():
    assert len(plan_memory(wan_14b(free=80 * GB, minimum_streamed=20)).streamed) == 20


def test_stream_mode_streams_every_block():
    assert plan_memory(wan_14b(free=80 * GB, mode="stream")).resident == frozenset()


def test_resident_mode_streams_nothing_or_says_that_it_does_not_fit():
    assert plan_memory(wan_14b(free=80 * GB, mode="resident")).streamed == ()
    with pytest.raises(NotEnoughMemoryError, match="Let blocks be streamed"):
        plan_memory(wan_14b(mode="resident"))


def test_the_plan_for_slots_knows_the_largest_streamed_block():
    request = MemoryRequest(
        free_bytes=10**6,
        block_bytes=(10, 90, 10, 10, 10, 10),
        rest_bytes=0,
        activation=lambda _chunks: 0,
        row_chunks=1,
        tokens=1,
        headroom_bytes=0,
        minimum_streamed=3,
    )
    assert plan_memory(request).weight_bytes == 3 * 10 + 2 * 90


def test_embedders_that_are_dropped_count_only_where_they_exceed_the_activations():
    dropped = wan_14b(embedder_bytes=GB // 2)
    staying = replace(dropped, embedders_stay=True)
    assert plan_memory(dropped).device_bytes == plan_memory(wan_14b()).device_bytes
    assert len(plan_memory(staying).resident) < len(plan_memory(dropped).resident)


def test_loras_travel_with_every_block():
    plain, lora = wan_14b(mode="stream"), wan_14b(mode="stream", lora_bytes_per_block=15_000_000)
    assert plan_memory(lora).weight_bytes - plan_memory(plain).weight_bytes == 2 * 15_000_000


def test_rows_are_split_finer_only_when_streaming_alone_does_not_fit(caplog):
    request = wan_14b(activation=lambda chunks: int(32 * GB / chunks), free=int(4.5 * GB), row_chunks=16)
    with caplog.at_level(logging.WARNING):
        plan = plan_memory(request)
    assert (plan.row_chunks, plan.slots, len(plan.streamed)) == (32, 2, 40)
    assert "32 chunks instead of 16; results change within rounding" in caplog.text


def test_what_does_not_fit_is_said_with_the_plan_and_with_what_would():
    request = wan_14b(TOKENS_720P, 4 * GB, frames=81)
    with pytest.raises(NotEnoughMemoryError) as caught:
        plan_memory(request)
    assert str(caught.value) == (
        "4.0 GB of device memory are free, not enough for: 75,600 tokens, activations 2.8 GB "
        "in 16 row chunks, "
        "0 blocks resident, 40 streamed (1 slot), 5.5 GB on the device, expected stall 0 ms. "
        "About 35,738 tokens would fit: 33 frames instead of 81, or width and height at 68 %"
    )


def test_the_video_that_is_advised_fits():
    with pytest.raises(NotEnoughMemoryError) as caught:
        plan_memory(wan_14b(TOKENS_720P, 4 * GB, frames=81))
    assert "35,738 tokens" in str(caught.value)
    assert plan_memory(wan_14b(35_738, 4 * GB)).slots == 1


def test_one_pass_at_a_time_is_advised_where_that_fits():
    with pytest.raises(NotEnoughMemoryError, match="switch batched_cfg off"):
        plan_memory(wan_14b(free=4 * GB, branches=2, workspace_bytes=GB // 2))


def test_another_file_is_advised_where_not_even_weights_fit():
    with pytest.raises(NotEnoughMemoryError, match=r"Weights alone need 2\.7 GB: .*fp8"):
        plan_memory(wan_14b(free=GB))


@pytest.mark.parametrize(("streamed", "slots"), [((1, 0), 1), ((0, 0), 1), ((6,), 1), ((-1,), 1), ((1,), 0)])
def test_an_impossible_placement_is_refused(streamed, slots):
    with pytest.raises(ValueError, match="stream"):
        Placement(6, streamed, slots)


@given(requests())
def test_blocks_that_no_pass_runs_are_neither_resident_nor_streamed(request):
    plan = plan_that_fits(request)
    assert plan.idle == request.idle
    assert not plan.idle & (plan.resident | set(plan.streamed))
    assert len(plan.idle) + len(plan.resident) + len(plan.streamed) == len(request.block_bytes)


def test_the_line_of_a_plan_names_the_blocks_that_are_not_used():
    plan = MemoryPlan(blocks=6, streamed=(0, 2), slots=1, idle=frozenset({1, 5}))
    assert "2 blocks resident, 2 streamed (1 slot), 2 not used" in str(plan)


def test_an_idle_block_cannot_be_streamed():
    with pytest.raises(ValueError, match="streamed blocks"):
        Placement(6, (1,), 1, frozenset({1}))
