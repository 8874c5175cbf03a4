"""Which layers of a module multiply in fp8 when that is asked for."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.formats import DENSE, fp8_product
from comfyui_wanvideo.wanvideo.weights.formats.fp8_product import Fp8Linear
from comfyui_wanvideo.wanvideo.weights.formats.scaled import ScaledFormat
from comfyui_wanvideo.wanvideo.weights.fp8_matmul import use_fp8_matmul
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from torch import nn

FP8 = torch.float8_e4m3fn
CPU = torch.device("cpu")


def layer(form=DENSE, scale=None, dtype=FP8):
    net = WanLinear(32, 16)
    generator = torch.Generator().manual_seed(0)
    stored = {"weight": torch.randn(16, 32, generator=generator).to(dtype)}
    net.store_as(form, stored if scale is None else {**stored, "weight_scale": scale})
    net.bias = nn.Parameter(torch.zeros(16), requires_grad=False)
    return net


@pytest.fixture
def fp8_device(monkeypatch):
    monkeypatch.setattr(fp8_product, "device_problem", lambda _device: None)


@pytest.mark.parametrize(
    "net",
    [layer(), layer(ScaledFormat(), torch.ones(())), layer(ScaledFormat(), torch.ones(16))],
    ids=["plain", "one", "rows"],
)
def test_layers_in_fp8_multiply_in_fp8(fp8_device, net):
    use_fp8_matmul(net, CPU, torch.bfloat16)
    assert isinstance(net.prepare(torch.bfloat16), Fp8Linear)


def test_the_product_is_near_the_expanded_one(fp8_device):
    net, x = layer(ScaledFormat(), torch.tensor(0.1)), torch.randn(5, 32).bfloat16()
    expected = net(x)
    use_fp8_matmul(net, CPU, torch.bfloat16)
    assert (net(x) - expected).norm() / expected.norm() < 0.05


def test_layers_in_other_formats_stay(fp8_device):
    net = layer(dtype=torch.bfloat16)
    report = use_fp8_matmul(net, CPU, torch.bfloat16)
    assert (net.format, report.multiplied, dict(report.expanded)) == (DENSE, 0, {})


def test_a_file_that_asks_for_full_precision_gets_it(fp8_device):
    net = layer(ScaledFormat(is_exact=True), torch.ones(()))
    report = use_fp8_matmul(net, CPU, torch.bfloat16)
    assert dict(report.expanded) == {"the file asks for full precision": 1}


def test_reasons_are_counted(fp8_device):
    net = nn.ModuleList(
        [layer(), layer(ScaledFormat(), torch.ones(16, 4)), layer(ScaledFormat(), torch.ones(16, 2))]
    )
    report = use_fp8_matmul(net, CPU, torch.bfloat16)
    assert str(report) == "fp8 products in 1 of 3 layers (2 are expanded: scales per block)"


def test_a_device_without_fp8_changes_nothing():
    net = layer()
    report = use_fp8_matmul(net, CPU, torch.bfloat16)
    assert (net.format, report.multiplied) == (DENSE, 0)
