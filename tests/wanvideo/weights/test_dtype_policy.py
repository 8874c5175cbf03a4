"""Which parameter is stored in which dtype."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.weights.assemble import assign
from comfyui_wanvideo.wanvideo.weights.dtype_policy import role_of, storage_dtypes
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from torch import nn

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
FP32_PARTS = ("patch_embedding", "time_embedding", "time_projection", "modulation", "norm", "head.")


class Norm(nn.Module):
    parameter_dtype = "fp32"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4), requires_grad=False)


class Net(nn.Module):
    """One of each: a role on the class, on an instance, inherited, and none."""

    def __init__(self):
        super().__init__()
        self.norm = Norm()
        self.linear = WanLinear(4, 4)
        self.precise = WanLinear(4, 4)
        self.precise.parameter_dtype = "fp32"
        self.group = nn.ModuleDict({"inner": nn.Linear(4, 4)})
        setattr(self.group, "parameter_dtype", "fp32")  # noqa: B010  the checker expects modules
        self.free = nn.Linear(4, 4)
        self.register_buffer("counter", torch.zeros((), dtype=torch.int64))


@pytest.fixture
def stored(make_file):
    """The dtypes a net ends up with, from a file of one dtype and a precision."""

    def make(file_dtype, compute_dtype):
        with torch.device("meta"):
            net = Net()
        tensors = {
            key: torch.ones(value.shape, dtype=file_dtype if value.is_floating_point() else value.dtype)
            for key, value in net.state_dict().items()
        }
        checkpoint = make_file(tensors)
        assign(net, checkpoint, dtype_of=storage_dtypes(net, checkpoint, compute_dtype=compute_dtype))
        return {key: value.dtype for key, value in net.state_dict().items()}

    return make


def test_a_role_on_the_class_counts():
    assert role_of(Net(), "norm.weight") == "fp32"


def test_a_role_on_the_instance_counts():
    assert (role_of(Net(), "precise.weight"), role_of(Net(), "linear.weight")) == ("fp32", "compute")


def test_a_module_without_a_role_follows_its_ancestor():
    assert (role_of(Net(), "group.inner.weight"), role_of(Net(), "free.weight")) == ("fp32", "compute")


def test_an_unknown_role_is_a_mistake_in_the_code():
    net = Net()
    setattr(net.free, "parameter_dtype", "fp64")  # noqa: B010  the checker expects modules
    with pytest.raises(ValueError, match="fp64"):
        role_of(net, "free.weight")


@pytest.mark.parametrize("file_dtype", FLOATS)
@pytest.mark.parametrize("compute_dtype", FLOATS)
def test_fp32_roles_are_fp32_whatever_file_and_precision_are(stored, file_dtype, compute_dtype):
    dtypes = stored(file_dtype, compute_dtype)
    assert dtypes["norm.weight"] == dtypes["group.inner.weight"] == dtypes["precise.bias"] == torch.float32


@pytest.mark.parametrize("file_dtype", FLOATS)
@pytest.mark.parametrize("compute_dtype", FLOATS)
def test_biases_and_plain_layers_take_the_precision(stored, file_dtype, compute_dtype):
    dtypes = stored(file_dtype, compute_dtype)
    assert dtypes["linear.bias"] == dtypes["free.weight"] == compute_dtype


@pytest.mark.parametrize("file_dtype", FLOATS)
@pytest.mark.parametrize("compute_dtype", FLOATS)
def test_a_wan_linear_is_never_stored_wider_than_in_the_file(stored, file_dtype, compute_dtype):
    dtype = stored(file_dtype, compute_dtype)["linear.weight"]
    assert dtype.itemsize <= file_dtype.itemsize
    assert dtype == (compute_dtype if file_dtype.itemsize >= compute_dtype.itemsize else file_dtype)


def test_integers_stay_integers(stored):
    assert stored(torch.float32, torch.bfloat16)["counter"] == torch.int64


def test_narrow_storage_changes_no_bit_of_the_result(make_file, make_tensors):
    tensors = make_tensors({"weight": (4, 4), "bias": (4,)}, torch.bfloat16)
    results = []
    for dtype_of in (
        lambda key, _: torch.float32,
        lambda key, _: torch.bfloat16 if key == "weight" else torch.float32,
    ):
        layer = WanLinear(4, 4)
        assign(layer, make_file(tensors), dtype_of=dtype_of)
        results.append(layer(torch.linspace(-1, 1, 4)))
    assert torch.equal(*results)


def test_in_a_wan_transformer_exactly_the_named_parts_are_fp32():
    with torch.device("meta"):
        model = WanTransformer(WanConfig(256, 512, 2, 1, 16, 16))
    for key in model.state_dict():
        is_precise = any(part in key for part in FP32_PARTS)
        assert role_of(model, key) == ("fp32" if is_precise else "compute"), key
