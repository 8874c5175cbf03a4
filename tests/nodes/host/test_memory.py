"""ComfyUI's real memory manager with our models in its list."""

import gc
import weakref

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.residency import Residency
from torch import nn

GPU = torch.device("meta")
CPU = torch.device("cpu")
GIGABYTE = 10**9


class Weights(nn.Module):
    """A module that claims a size, so that gigabytes need no memory."""

    def __init__(self, claimed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.claimed = claimed


class ClaimedResidency(Residency):
    """Its copies stay in host memory: PyTorch does not point a host parameter to the meta device."""

    def __init__(self, module):
        super().__init__(module, copy=lambda tensor, _device: tensor.clone())

    @property
    def total_bytes(self) -> int:
        assert isinstance(self.module, Weights)
        return self.module.claimed


def managed(host, claimed=100, device=GPU):
    residency = ClaimedResidency(Weights(claimed))
    return host.ManagedModel(residency, load_device=device, offload_device=CPU)


def listed(manager):
    return [entry.model for entry in manager.current_loaded_models]


def test_loading_moves_the_weights_and_enters_the_list(host, manager):
    model = managed(host)
    host.load(model)
    assert listed(manager) == [model]
    assert model.residency.device == GPU
    assert model.loaded_size() == 100
    assert model.current_loaded_device() == GPU


def test_loading_twice_keeps_one_entry_and_the_same_copy(host, manager):
    model = managed(host)
    host.load(model)
    copy = model.model.weight.data_ptr()
    host.load(model)
    assert listed(manager) == [model]
    assert model.model.weight.data_ptr() == copy


def test_unload_all_models_brings_the_masters_back(host, manager):
    model = managed(host)
    master = model.model.weight.data_ptr()
    host.load(model)
    assert model.model.weight.data_ptr() != master
    manager.unload_all_models()
    assert listed(manager) == []
    assert model.model.weight.data_ptr() == master
    assert model.loaded_size() == 0


@pytest.mark.parametrize("for_dynamic", [False, True])
def test_free_memory_evicts_when_room_is_short(host, manager, for_dynamic):
    model = managed(host, claimed=6 * GIGABYTE)
    host.load(model)
    manager.free_memory(8 * GIGABYTE, GPU, for_dynamic=for_dynamic)
    assert listed(manager) == []
    assert model.loaded_size() == 0


def test_free_memory_leaves_a_model_alone_when_there_is_room(host, manager):
    model = managed(host, claimed=2 * GIGABYTE)
    host.load(model)
    manager.free_memory(1 * GIGABYTE, GPU)
    assert listed(manager) == [model]
    assert model.loaded_size() == 2 * GIGABYTE


def test_loading_a_second_model_evicts_the_first_when_both_do_not_fit(host, manager):
    first, second = managed(host, claimed=6 * GIGABYTE), managed(host, claimed=7 * GIGABYTE)
    host.load(first)
    host.load(second)
    assert listed(manager) == [second]
    assert first.loaded_size() == 0


def test_two_models_stay_when_both_fit(host, manager):
    first, second = managed(host), managed(host)
    host.load(first)
    host.load(second)
    assert set(listed(manager)) == {first, second}


def test_models_loaded_together_are_both_on_the_device(host, manager):
    first, second = managed(host), managed(host)
    host.load(first, second)
    assert first.loaded_size() == second.loaded_size() == 100


def test_requested_memory_evicts_other_models(host, manager):
    other, model = managed(host, claimed=6 * GIGABYTE), managed(host, claimed=GIGABYTE)
    host.load(other)
    host.load(model, memory_required=7 * GIGABYTE)
    assert listed(manager) == [model]


def test_a_model_in_use_is_not_evicted_for_itself(host, manager):
    model = managed(host, claimed=6 * GIGABYTE)
    host.load(model)
    host.load(model, memory_required=3 * GIGABYTE)
    assert listed(manager) == [model]
    assert model.loaded_size() == 6 * GIGABYTE


def test_a_core_model_evicts_ours(host, manager):
    import comfy.model_patcher

    ours = managed(host, claimed=6 * GIGABYTE)
    host.load(ours)
    core = comfy.model_patcher.ModelPatcher(nn.Linear(2, 2), GPU, CPU, size=7 * GIGABYTE)
    core.load = lambda *_, **__: None
    manager.load_models_gpu([core])
    assert ours not in listed(manager)
    assert ours.loaded_size() == 0


def test_ours_evicts_a_core_model(host, manager):
    import comfy.model_patcher

    core = comfy.model_patcher.ModelPatcher(nn.Linear(2, 2), GPU, CPU, size=6 * GIGABYTE)
    core.load = lambda *_, **__: setattr(core.model, "model_loaded_weight_memory", 6 * GIGABYTE)
    core.unpatch_model = lambda *_, **__: setattr(core.model, "model_loaded_weight_memory", 0)
    manager.load_models_gpu([core])
    ours = managed(host, claimed=7 * GIGABYTE)
    host.load(ours)
    assert listed(manager) == [ours]


def test_garbage_collection_removes_the_entry(host, manager):
    model = managed(host)
    host.load(model)
    module = weakref.ref(model.model)
    del model
    gc.collect()
    assert module() is None
    assert manager.current_loaded_models == []


def test_a_dropped_model_does_not_disturb_the_next_load(host, manager):
    host.load(managed(host))
    second = managed(host)
    host.load(second)
    assert listed(manager) == [second]


def test_evict_takes_only_this_model_away(host, manager):
    first, second = managed(host), managed(host)
    host.load(first, second)
    host.evict(first)
    assert listed(manager) == [second]
    assert first.loaded_size() == 0


def test_evict_of_a_model_that_was_never_loaded_does_nothing(host, manager):
    other = managed(host)
    host.load(other)
    host.evict(managed(host))
    assert listed(manager) == [other]


def test_make_room_evicts_on_the_device(host, manager):
    model = managed(host, claimed=6 * GIGABYTE)
    host.load(model)
    host.make_room(8 * GIGABYTE, GPU)
    assert model.loaded_size() == 0


def test_end_of_prompt_clean_up_of_dynamic_vram_passes_our_models_by(host, manager):
    model = managed(host)
    host.load(model)
    manager.reset_cast_buffers()
    manager.free_pins(GIGABYTE)
    assert listed(manager) == [model]


def test_on_a_cpu_only_machine_the_masters_are_used(host, manager):
    model = managed(host, device=CPU)
    master = model.model.weight.data_ptr()
    host.load(model)
    assert listed(manager) == [model]
    assert model.model.weight.data_ptr() == master


def test_a_load_that_runs_out_of_memory_leaves_nothing_behind(host, manager):
    def fail(tensor, device):
        raise torch.OutOfMemoryError("no room")

    residency = Residency(Weights(100), copy=fail)
    model = host.ManagedModel(residency, load_device=GPU, offload_device=CPU)
    with pytest.raises(torch.OutOfMemoryError):
        host.load(model)
    assert model.loaded_size() == 0
    assert listed(manager) == []


def test_our_node_outputs_are_no_core_patchers(host, manager):
    import comfy.model_patcher

    assert not comfy.model_patcher.is_model_patcher_output(managed(host))


@pytest.fixture
def dynamic(host):
    """A model ComfyUI believes to page by itself, as every core model under DynamicVRAM."""

    class Dynamic(host.ManagedModel):
        def is_dynamic(self):
            return True

    residency = ClaimedResidency(Weights(7 * GIGABYTE))
    return Dynamic(residency, load_device=GPU, offload_device=CPU)


def test_a_dynamic_model_evicts_ours_when_it_needs_the_room(host, manager, dynamic):
    ours = managed(host, claimed=6 * GIGABYTE)
    host.load(ours)
    host.load(dynamic)
    assert listed(manager) == [dynamic]


def test_ours_evicts_a_dynamic_model_when_it_needs_the_room(host, manager, dynamic):
    ours = managed(host, claimed=6 * GIGABYTE)
    host.load(dynamic)
    host.load(ours)
    assert listed(manager) == [ours]
