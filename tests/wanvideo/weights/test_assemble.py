"""Filling a module from a file."""

import logging
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.assemble import assign, is_finite
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

REPOSITORY = Path(__file__).resolve().parents[3]
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = {
    "first.weight": (6, 4),
    "first.bias": (6,),
    "second.weight": (3, 6),
    "second.bias": (3,),
    "table": (5,),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = WanLinear(4, 6)
        self.second = WanLinear(6, 3)
        self.register_buffer("table", torch.zeros(5))


@pytest.fixture
def net():
    with torch.device("meta"):
        return Net()


def as_stored(_key, _parameter):
    return None


def to(dtype):
    return lambda _key, _parameter: dtype


def refused(net, checkpoint, **options):
    with pytest.raises(ModelFileError) as caught:
        assign(net, checkpoint, dtype_of=as_stored, **options)
    message = str(caught.value)
    assert message.startswith(f"{checkpoint.path.name}: ")
    return message


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_parameter_and_buffer_gets_its_tensor(net, make_file, make_tensors, dtype):
    tensors = make_tensors(SHAPES, dtype)
    assign(net, make_file(tensors), dtype_of=as_stored)
    state = net.state_dict()
    assert set(state) == set(tensors)
    assert all(torch.equal(state[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_fitting_dtype_is_a_view_on_the_file(net, make_file, make_tensors, dtype):
    checkpoint = make_file(make_tensors(SHAPES, dtype))
    report = assign(net, checkpoint, dtype_of=to(dtype))
    assert net.first.weight.data_ptr() == checkpoint.tensor("first.weight").data_ptr()
    assert (report.viewed_bytes, report.copied_bytes) == (checkpoint.byte_count(), 0)


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", FLOATS)
def test_another_dtype_is_a_cast(net, make_file, make_tensors, source, target):
    tensors = make_tensors(SHAPES, source)
    assign(net, make_file(tensors), dtype_of=to(target))
    assert torch.equal(net.second.weight, tensors["second.weight"].to(target))


def test_the_report_counts_views_and_copies_apart(net, make_file, make_tensors):
    checkpoint = make_file(make_tensors(SHAPES))
    report = assign(
        net, checkpoint, dtype_of=lambda key, _: torch.bfloat16 if key == "first.weight" else None
    )
    assert (report.viewed_bytes, report.copied_bytes) == (checkpoint.byte_count() - 24 * 4, 24 * 2)


def test_the_result_is_frozen_and_usable_outside_inference_mode(net, make_file, make_tensors):
    with torch.inference_mode():
        assign(net, make_file(make_tensors(SHAPES)), dtype_of=as_stored)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not any(parameter.is_inference() for parameter in net.parameters())


def test_missing_weights_are_named(net, make_file, make_tensors):
    tensors = make_tensors({key: shape for key, shape in SHAPES.items() if "second" not in key})
    message = refused(net, make_file(tensors))
    assert "2 of 5 weights are missing: second.weight, second.bias" in message


def test_of_many_missing_weights_the_first_are_named(make_file, make_tensors):
    with torch.device("meta"):
        net = nn.Sequential(*(WanLinear(2, 2) for _ in range(20)))
    message = refused(net, make_file(make_tensors({"0.weight": (2, 2)})))
    assert "39 of 40 weights are missing: 0.bias, 1.weight, 1.bias, 2.weight, 2.bias, and 34 more" in message


def test_a_wrong_shape_is_named_with_both_shapes(net, make_file, make_tensors):
    message = refused(net, make_file(make_tensors({**SHAPES, "first.weight": (4, 6)})))
    assert "first.weight has shape [4, 6], expected [6, 4]" in message


def test_integers_in_place_of_weights_are_refused_by_name(net, make_file, make_tensors):
    tensors = {**make_tensors(SHAPES), "first.weight": torch.ones(6, 4, dtype=torch.int8)}
    assert "first.weight (torch.int8)" in refused(net, make_file(tensors))


def test_nothing_is_read_from_a_file_that_does_not_fit(net, make_header):
    """The file is a header without tensors: reading one would fail in another way."""
    assert "table" in refused(net, make_header({**SHAPES, "table": (6,)}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_values_that_are_not_finite_are_refused_by_name(net, make_file, make_tensors, value, dtype):
    tensors = make_tensors(SHAPES, dtype)
    tensors["second.weight"][1, 2] = value
    assert "NaN or infinite values in second.weight" in refused(net, make_file(tensors))


def test_a_value_that_overflows_the_chosen_dtype_is_refused(net, make_file, make_tensors):
    tensors = make_tensors(SHAPES, torch.bfloat16)
    tensors["first.bias"][0] = 1e6
    with pytest.raises(ModelFileError, match=r"first\.bias.*precision too narrow"):
        assign(net, make_file(tensors), dtype_of=to(torch.float16))


def test_the_check_of_values_can_be_turned_off(net, make_file, make_tensors):
    tensors = make_tensors(SHAPES)
    tensors["table"][0] = math.nan
    assign(net, make_file(tensors), dtype_of=as_stored, check_values=False)
    assert net.table.isnan().any()


def test_unexpected_weights_are_one_warning_that_names_them(net, make_file, make_tensors, caplog):
    with caplog.at_level(logging.WARNING):
        report = assign(net, make_file(make_tensors({**SHAPES, "unknown.key": (2,)})), dtype_of=as_stored)
    assert report.unexpected == ("unknown.key",)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "unexpected" in record.getMessage()
    assert "unknown.key" in record.getMessage()
    assert "model.safetensors" in record.getMessage()


@pytest.mark.parametrize("key", ["model_type.Wan2_1-FLF2V-14B-720P", "freqs", "rope.freqs_cos"])
def test_known_harmless_keys_are_ignored(net, make_file, make_tensors, caplog, key):
    report = assign(net, make_file(make_tensors({**SHAPES, key: (1,)})), dtype_of=as_stored)
    assert report.unexpected == ()
    assert not caplog.records


def test_the_caller_can_name_more_keys_to_ignore(net, make_file, make_tensors, caplog):
    tensors = make_tensors({**SHAPES, "family.a": (1,), "family.b": (1,)})
    report = assign(net, make_file(tensors), dtype_of=as_stored, ignore=["family.*"])
    assert report.unexpected == ()
    assert not caplog.records


def test_a_table_left_on_meta_is_caught(make_file, make_tensors):
    with torch.device("meta"):
        net = WanLinear(4, 6)
        net.register_buffer("computed", torch.zeros(2), persistent=False)
    with pytest.raises(AssertionError, match="computed"):
        assign(net, make_file(make_tensors({"weight": (6, 4), "bias": (6,)})), dtype_of=as_stored)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory counters")
def test_a_cast_keeps_only_the_result_and_one_tensor_of_the_file_in_memory(tmp_path):
    layers, width, result, one_tensor = 8, 2048, 64 << 20, 16 << 20
    tensors = {f"{index}.weight": torch.ones(width, width) for index in range(layers)}
    save_file(tensors, tmp_path / "model.safetensors")
    script = f"""
        import runpy
        runpy.run_path({str(REPOSITORY / "tests" / "conftest.py")!r})
        from comfyui_wanvideo.wanvideo.weights.assemble import assign
        from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
        from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
        import torch
        torch.set_num_threads(1)
        torch.aminmax(torch.ones(4096).bfloat16())
        def memory(name):
            line = next(line for line in open("/proc/self/status") if line.startswith(name))
            return int(line.split()[1]) * 1024
        with torch.device("meta"):
            net = torch.nn.Sequential(*(WanLinear({width}, {width}, bias=False) for _ in range({layers})))
        before = memory("VmRSS")
        checkpoint = Checkpoint.open({str(tmp_path / "model.safetensors")!r})
        assign(net, checkpoint, dtype_of=lambda key, parameter: torch.bfloat16)
        print(memory("VmHWM") - before)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < result + 2 * one_tensor


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 70_000),
    share=st.floats(0, 1, exclude_max=True),
    value=st.sampled_from([math.nan, math.inf, -math.inf]),
    dtype=st.sampled_from([*FLOATS, torch.float64, torch.float8_e5m2]),
)
def test_one_bad_value_is_found_wherever_it_is(size, share, value, dtype):
    tensor = torch.zeros(size)
    assert is_finite(tensor.to(dtype))
    tensor[int(size * share)] = value
    assert not is_finite(tensor.to(dtype))


def test_nan_in_fp8_e4m3_is_found():
    tensor = torch.ones(100).to(torch.float8_e4m3fn)
    assert is_finite(tensor)
    tensor.view(torch.uint8)[70] = 0x7F
    assert not is_finite(tensor)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_largest_numbers_are_finite(dtype):
    limits = torch.finfo(dtype)
    assert is_finite(torch.tensor([limits.max, limits.min, limits.tiny], dtype=dtype))


def test_empty_and_integer_tensors_are_finite():
    assert is_finite(torch.empty(0, 3))
    assert is_finite(torch.ones(3, dtype=torch.int64))
