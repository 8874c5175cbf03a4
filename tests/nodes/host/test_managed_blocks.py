"""ComfyUI's real memory manager with models of ours that are planned block by block."""

import pytest
import torch
from torch import nn

GPU = torch.device("meta")
CPU = torch.device("cpu")
GIGABYTE = 10**9


class Blocks:
    """A residency that claims a gigabyte per block; the plan says how many are resident."""

    def __init__(self, blocks: int, *, resident: int, pinned: int = 0) -> None:
        self.module = nn.Linear(2, 2)
        self.blocks = blocks
        self.planned = resident
        self.loaded = 0
        self.pinned_bytes = pinned * GIGABYTE

    @property
    def total_bytes(self) -> int:
        return self.blocks * GIGABYTE

    @property
    def planned_bytes(self) -> int:
        return self.planned * GIGABYTE

    @property
    def resident_bytes(self) -> int:
        return self.loaded * GIGABYTE

    def load(self, device) -> int:
        self.loaded = self.planned
        return self.resident_bytes

    def unload(self) -> int:
        freed, self.loaded, self.pinned_bytes = self.resident_bytes, 0, 0
        return freed

    def free(self, wanted: int) -> int:
        count = min(-(-wanted // GIGABYTE), self.loaded)
        self.loaded -= count
        return count * GIGABYTE

    def release_pinned(self, wanted: int) -> int:
        freed = min(wanted, self.pinned_bytes)
        self.pinned_bytes -= freed
        return freed


@pytest.fixture
def managed(host):
    def make(blocks=8, *, resident=8, pinned=0):
        residency = Blocks(blocks, resident=resident, pinned=pinned)
        return host.ManagedBlocks(residency, load_device=GPU, offload_device=CPU)

    return make


def listed(manager):
    return [entry.model for entry in manager.current_loaded_models]


def test_room_is_asked_for_what_the_plan_keeps_on_the_device(host, manager, managed):
    other, ours = managed(4, resident=4), managed(20, resident=3)
    host.load(other)
    host.load(ours)
    assert set(listed(manager)) == {other, ours}
    assert ours.loaded_size() == 3 * GIGABYTE


@pytest.mark.parametrize("for_dynamic", [False, True])
def test_free_memory_takes_only_as_many_blocks_as_are_needed(host, manager, managed, for_dynamic):
    ours = managed(8, resident=8)
    host.load(ours)
    manager.free_memory(5 * GIGABYTE, GPU, for_dynamic=for_dynamic)
    assert ours.loaded_size() == 5 * GIGABYTE
    assert listed(manager) == [ours]


def test_of_two_models_the_second_takes_what_it_needs_from_the_first(host, manager, managed):
    high, low = managed(8, resident=8), managed(8, resident=5)
    host.load(high)
    host.load(low)
    assert low.loaded_size() == 5 * GIGABYTE
    assert high.loaded_size() + low.loaded_size() <= 10 * GIGABYTE
    assert high.loaded_size() < 8 * GIGABYTE


def test_disable_smart_memory_evicts_the_other_model_whole(host, manager, managed, monkeypatch):
    monkeypatch.setattr(manager, "DISABLE_SMART_MEMORY", True)
    first, second = managed(2, resident=2), managed(2, resident=2)
    host.load(first)
    host.load(second)
    assert listed(manager) == [second]
    assert first.loaded_size() == 0


def test_free_for_counts_what_the_model_itself_has(host, manager, managed):
    ours = managed(8, resident=6)
    host.load(ours)
    assert host.free_for(ours, 0) == 10 * GIGABYTE


def test_free_for_evicts_others_and_never_the_model_itself(host, manager, managed):
    other, ours = managed(4, resident=4), managed(8, resident=3)
    host.load(other)
    host.load(ours)
    assert host.free_for(ours, 9 * GIGABYTE) >= 9 * GIGABYTE
    assert ours.loaded_size() == 3 * GIGABYTE
    assert other.loaded_size() < 4 * GIGABYTE


def test_free_for_evicts_nobody_when_there_is_room(host, manager, managed):
    other, ours = managed(2, resident=2), managed(4, resident=3)
    host.load(other)
    assert host.free_for(ours, 5 * GIGABYTE) == 8 * GIGABYTE
    assert other.loaded_size() == 2 * GIGABYTE


def test_unload_all_models_frees_device_and_pinned_memory(host, manager, managed):
    ours = managed(8, resident=3, pinned=5)
    host.load(ours)
    manager.unload_all_models()
    assert ours.loaded_size() == 0
    assert ours.pinned_memory_size() == 0


@pytest.fixture
def dynamic(host):
    """A model ComfyUI believes to page by itself, as every core model under DynamicVRAM."""

    class Dynamic(host.ManagedModel):
        def is_dynamic(self):
            return True

    return Dynamic(Blocks(5, resident=5), load_device=GPU, offload_device=CPU)


def test_a_dynamic_model_takes_only_the_blocks_it_needs(host, manager, managed, dynamic):
    ours = managed(8, resident=8)
    host.load(ours)
    host.load(dynamic)
    assert dynamic.loaded_size() == 5 * GIGABYTE
    assert 0 < ours.loaded_size() <= 5 * GIGABYTE


def test_ours_takes_the_room_of_a_dynamic_model(host, manager, managed, dynamic):
    host.load(dynamic)
    ours = managed(8, resident=8)
    host.load(ours)
    assert ours.loaded_size() == 8 * GIGABYTE
    assert dynamic.loaded_size() == 0


@pytest.fixture
def budget(manager, monkeypatch):
    """20 GB may be pinned; pinning is only counted."""
    monkeypatch.setattr(manager, "MAX_PINNED_MEMORY", 20 * GIGABYTE)
    monkeypatch.setattr(manager, "TOTAL_PINNED_MEMORY", 0)
    monkeypatch.setattr(manager, "ensure_pin_budget", lambda *_, **__: True)
    pinned = []
    monkeypatch.setattr(manager, "pin_memory", lambda tensor: pinned.append(tensor) or True)
    return pinned


class Slab:
    """A tensor that claims a size."""

    nbytes = 3 * GIGABYTE


def test_a_running_model_pins_within_the_budget(host, managed, budget):
    ours = managed()
    assert host.pinning_for(ours.model).pin(Slab()) is True
    assert len(budget) == 1


def test_pinned_memory_of_an_idle_model_goes_to_the_one_that_runs(
    host, manager, managed, budget, monkeypatch
):
    monkeypatch.setattr(manager, "TOTAL_PINNED_MEMORY", 19 * GIGABYTE)
    idle, ours = managed(1, resident=1, pinned=19), managed(1, resident=1)
    host.load(idle)
    give_back = idle.residency.release_pinned

    def release(wanted):
        freed = give_back(wanted)
        monkeypatch.setattr(manager, "TOTAL_PINNED_MEMORY", manager.TOTAL_PINNED_MEMORY - freed)
        return freed

    idle.residency.release_pinned = release
    assert host.pinning_for(ours.model).pin(Slab()) is True
    assert idle.pinned_memory_size() == 16 * GIGABYTE


def test_pinning_beyond_the_budget_is_refused(host, manager, managed, budget, monkeypatch):
    monkeypatch.setattr(manager, "TOTAL_PINNED_MEMORY", 19 * GIGABYTE)
    ours = managed()
    assert host.pinning_for(ours.model).pin(Slab()) is False
    assert budget == []


def test_nothing_is_pinned_where_comfyui_pins_nothing(host, manager, managed, monkeypatch):
    monkeypatch.setattr(manager, "MAX_PINNED_MEMORY", -1)
    assert host.pinning_for(managed().model).pin(Slab()) is False


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("HIGH_VRAM", "resident"),
        ("NORMAL_VRAM", "auto"),
        ("LOW_VRAM", "stream"),
        ("NO_VRAM", "stream"),
        ("DISABLED", "auto"),
        ("SHARED", "auto"),
    ],
)
def test_the_start_option_says_how_much_stays_on_the_device(host, manager, monkeypatch, state, expected):
    monkeypatch.setattr(manager, "vram_state", manager.VRAMState[state])
    assert host.preferred_residency() == expected
