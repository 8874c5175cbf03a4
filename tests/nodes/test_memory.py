"""What the memory nodes ask for."""

import pytest
from comfyui_wanvideo.wanvideo.errors import InputError


@pytest.fixture
def settings(node_module):
    return node_module("memory_settings")


@pytest.fixture
def memory(node_module):
    return node_module("memory")


def block_swap(memory, **inputs):
    values = {"blocks_to_swap": 20, "offload_img_emb": False, "offload_txt_emb": False, **inputs}
    return memory.WanVideoBlockSwap.run(**values).result[0]


def test_nothing_connected_demands_nothing(settings):
    assert settings.MemorySettings().min_streamed(40) == 0
    assert settings.MemorySettings().notices(40) == []


def test_blocks_to_swap_is_a_lower_bound(memory, settings):
    found = settings.MemorySettings(block_swap(memory, blocks_to_swap=12))
    assert found.min_streamed(40) == 12


def test_blocks_to_swap_beyond_the_model_is_clamped_and_said_with_both_numbers(memory, settings):
    found = settings.MemorySettings(block_swap(memory, blocks_to_swap=48))
    assert found.min_streamed(30) == 30
    (notice,) = found.notices(30)
    assert "48" in notice
    assert "30 blocks" in notice


@pytest.mark.parametrize(("percent", "blocks"), [(0.0, 0), (0.5, 15), (0.51, 16), (1.0, 30)])
def test_offload_percent_counts_blocks_upwards(memory, settings, percent, blocks):
    vram = memory.WanVideoVRAMManagement.run(offload_percent=percent).result[0]
    assert settings.MemorySettings(vram_management=vram).min_streamed(30) == blocks


@pytest.mark.parametrize(("swap", "percent", "blocks"), [(20, 0.1, 20), (2, 0.5, 15)])
def test_of_two_demands_the_larger_counts_and_is_said(memory, settings, swap, percent, blocks):
    found = settings.MemorySettings(
        block_swap(memory, blocks_to_swap=swap), settings.VramManagementSettings(percent)
    )
    assert found.min_streamed(30) == blocks
    (notice,) = found.notices(30)
    assert "larger" in notice


def test_memory_mode_resident_streams_nothing_and_says_what_it_ignores(memory, settings):
    found = settings.MemorySettings(block_swap(memory, memory_mode="resident"))
    assert found.min_streamed(40) == 0
    (notice,) = found.notices(40)
    assert "blocks_to_swap is not used" in notice


def test_memory_mode_stream_streams_all(memory, settings):
    assert settings.MemorySettings(block_swap(memory, memory_mode="stream")).min_streamed(40) == 40


@pytest.mark.parametrize("value", ["", None, "auto"])
def test_the_empty_value_of_an_old_graph_means_auto(memory, value):
    assert memory.WanVideoBlockSwap.validate_inputs(memory_mode=value) is True
    assert block_swap(memory, memory_mode=value).memory_mode == "auto"


def test_another_memory_mode_is_refused_by_name(memory):
    answer = memory.WanVideoBlockSwap.validate_inputs(memory_mode="native")
    assert answer == "memory_mode: 'native' is not one of auto, resident, stream"


@pytest.mark.parametrize(("prefetch", "slots"), [(0, 2), (1, 2), (2, 3), (40, 41)])
def test_prefetched_blocks_and_the_one_that_computes_have_a_slot_each(memory, prefetch, slots):
    assert block_swap(memory, prefetch_blocks=prefetch).slots == slots


def test_the_dict_of_another_pack_is_read(settings):
    value = {"blocks_to_swap": 7, "offload_txt_emb": True, "prefetch_blocks": None}
    expected = settings.BlockSwapSettings(blocks_to_swap=7, offload_txt_emb=True)
    assert settings.as_block_swap(value) == expected


@pytest.mark.parametrize("value", [{"other": 1}, 3])
def test_anything_else_on_the_socket_is_refused(settings, value):
    with pytest.raises(InputError, match="block_swap_args"):
        settings.as_block_swap(value)
