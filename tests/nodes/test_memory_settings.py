"""How many blocks the memory nodes ask to be streamed, those of a VACE module counted apart."""

import pytest


@pytest.fixture
def settings(node_module):
    return node_module("memory_settings")


@pytest.mark.parametrize(
    ("swap", "streamed"),
    [
        ({"vace_blocks_to_swap": 3}, 3),
        ({"vace_blocks_to_swap": 15}, 8),  # all there are
        ({"blocks_to_swap": 20, "vace_blocks_to_swap": 8}, 28),
        ({"blocks_to_swap": 48, "vace_blocks_to_swap": 2}, 42),
        ({"blocks_to_swap": 20}, 20),
        ({"memory_mode": "stream"}, 48),
        ({"memory_mode": "resident", "vace_blocks_to_swap": 8}, 0),
    ],
)
def test_blocks_of_the_model_and_of_vace_are_counted_apart(settings, swap, streamed):
    found = settings.MemorySettings(settings.BlockSwapSettings(**swap))
    assert found.min_streamed(40, 8) == streamed


def test_without_a_vace_module_its_number_asks_for_nothing(settings):
    found = settings.MemorySettings(settings.BlockSwapSettings(vace_blocks_to_swap=15))
    assert found.min_streamed(40) == 0


def test_a_percentage_is_of_both(settings):
    found = settings.MemorySettings(vram_management=settings.VramManagementSettings(0.5))
    assert found.min_streamed(40, 8) == 24


def test_the_number_of_another_packs_dict_is_read(settings):
    found = settings.as_block_swap({"blocks_to_swap": 2, "vace_blocks_to_swap": 5})
    assert found.vace_blocks_to_swap == 5


@pytest.mark.parametrize(("wanted", "modes"), [(0, ("resident", "auto")), (1, ("auto",))])
def test_a_demand_for_vace_blocks_holds_where_comfyui_prefers_everything_on_the_device(
    settings, node_module, monkeypatch, wanted, modes
):
    run_plan = node_module("run_plan")
    monkeypatch.setattr(run_plan, "preferred_residency", lambda: "resident")
    swap = settings.BlockSwapSettings(vace_blocks_to_swap=wanted)
    assert run_plan._modes(settings.MemorySettings(swap), 40, 8) == modes
