"""Masters on the host, copies on a device. The device is simulated unless there is one."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.residency import Residency
from torch import nn
from torch._dynamo.testing import CompileCounter

DEVICE = torch.device("cuda", 0)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)
        self.register_buffer("table", torch.ones(3))


@pytest.fixture
def net():
    return Net().requires_grad_(False)


def simulated(net):
    """A device whose copies are other host tensors."""
    return Residency(net, copy=lambda tensor, _device: tensor.clone())


def tensors(net):
    return [*net.parameters(), *net.buffers()]


def addresses(net):
    return [tensor.data_ptr() for tensor in tensors(net)]


def test_loading_brings_all_bytes_and_says_how_many(net):
    residency = simulated(net)
    assert residency.load(DEVICE) == residency.total_bytes == (8 * 4 + 4 + 3) * 4
    assert residency.resident_bytes == residency.total_bytes


def test_loading_twice_copies_once(net):
    residency = simulated(net)
    residency.load(DEVICE)
    before = addresses(net)
    assert residency.load(DEVICE) == 0
    assert addresses(net) == before


def test_unloading_points_to_the_masters_again(net):
    masters = addresses(net)
    residency = simulated(net)
    residency.load(DEVICE)
    assert not set(addresses(net)) & set(masters)
    assert residency.unload() == residency.total_bytes
    assert addresses(net) == masters
    assert residency.resident_bytes == 0


def test_unloading_never_copies_back(net):
    residency = simulated(net)
    before = net.linear.weight.clone()
    residency.load(DEVICE)
    net.linear.weight.zero_()
    residency.unload()
    assert torch.equal(net.linear.weight, before)


def test_unloading_what_is_not_loaded_frees_nothing(net):
    assert simulated(net).unload() == 0


def test_the_parameter_objects_stay_the_same(net):
    before = [id(tensor) for tensor in tensors(net)]
    residency = simulated(net)
    residency.load(DEVICE)
    residency.unload()
    assert [id(tensor) for tensor in tensors(net)] == before


def test_loading_on_the_cpu_does_nothing(net):
    masters = addresses(net)
    residency = simulated(net)
    assert residency.load("cpu") == 0
    assert (residency.resident_bytes, addresses(net)) == (0, masters)


def test_loading_on_the_cpu_after_a_device_is_an_unload(net):
    masters = addresses(net)
    residency = simulated(net)
    residency.load(DEVICE)
    residency.load("cpu")
    assert (residency.resident_bytes, addresses(net)) == (0, masters)


def test_a_failed_load_leaves_nothing_behind(net):
    masters = addresses(net)
    calls = iter(range(100))

    def full(tensor, _device):
        if next(calls) == 1:
            raise torch.OutOfMemoryError("no room")
        return tensor.clone()

    residency = Residency(net, copy=full)
    with pytest.raises(torch.OutOfMemoryError):
        residency.load(DEVICE)
    assert (residency.resident_bytes, addresses(net)) == (0, masters)


def test_a_shared_parameter_is_counted_once(net):
    net.other = nn.Linear(8, 4)
    net.other.weight, net.other.bias = net.linear.weight, net.linear.bias
    assert simulated(net).total_bytes == (8 * 4 + 4 + 3) * 4


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("loaded", [False, True])
def test_inference_mode_may_come_and_go(loaded, made):
    with torch.inference_mode(False):
        net = Net().requires_grad_(False)
    with torch.inference_mode(made):
        residency = simulated(net)
    with torch.inference_mode(loaded):
        residency.load(DEVICE)
    first = net.linear(torch.ones(8))
    residency.unload()
    assert torch.equal(net.linear(torch.ones(8)), first)


def test_masters_elsewhere_are_refused():
    with pytest.raises(ValueError, match="meta"):
        Residency(nn.Linear(2, 2, device="meta"))


def test_repointing_does_not_recompile(net):
    residency = simulated(net)
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(net.linear, backend=counter)
    with torch.no_grad():
        for _ in range(3):
            residency.load(DEVICE)
            compiled(torch.ones(8))
            residency.unload()
            compiled(torch.ones(8))
    assert counter.frame_count == 1


@needs_cuda
def test_on_a_gpu_weights_come_and_go(net):
    residency = Residency(net)
    expected = net.linear(torch.ones(8))
    before = torch.cuda.memory_allocated()
    residency.load("cuda")
    assert residency.load("cuda:0") == 0
    assert torch.cuda.memory_allocated() - before >= residency.total_bytes
    assert torch.allclose(net.linear(torch.ones(8, device="cuda")).cpu(), expected, atol=1e-6)
    residency.unload()
    assert torch.cuda.memory_allocated() == before
