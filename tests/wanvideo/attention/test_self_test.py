"""A backend is measured before it is trusted."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.registry import BACKENDS
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.attention.self_test import problem, random_inputs, self_test

CPU = torch.device("cpu")


def backend(function, **changes):
    return replace(BACKENDS["sageattn"], function=function, **changes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_right_backend_has_no_problem(dtype):
    assert problem(backend(lambda q, k, v: sdpa(q, k, v)), CPU, dtype) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda q, k, v: torch.randn_like(sdpa(q, k, v)),
        lambda q, k, v: sdpa(q, k, v) * 1.2,
        lambda q, k, v: sdpa(q * 128**0.5, k, v),
        lambda q, k, v: sdpa(q, k[:, :256], v[:, :256]),
    ],
    ids=["noise", "gain", "scale", "keys after the last whole tile"],
)
def test_wrong_numbers_are_found_and_the_error_is_named(wrong):
    found = problem(backend(wrong), CPU, torch.bfloat16)
    assert found is not None
    assert "wrong numbers" in found
    assert "relative error" in found
    assert "0.1" in found


def test_nan_counts_as_an_infinite_error():
    broken = backend(lambda q, k, v: sdpa(q, k, v) * float("nan"))
    assert self_test(broken, CPU, torch.bfloat16).error == float("inf")


@pytest.mark.parametrize("error", [RuntimeError, ValueError, ImportError, AssertionError, TypeError])
def test_a_kernel_that_does_not_run_is_told_by_its_own_words(error):
    def broken(_query, _key, _value):
        raise error("no kernel image\nfor this device")

    found = problem(backend(broken), CPU, torch.bfloat16)
    assert found is not None
    assert "does not run on cpu" in found
    assert f"{error.__name__}: no kernel image)" in found


def test_it_is_measured_once_per_library_device_and_dtype():
    calls = []

    def counting(query, key, value):
        calls.append(query.dtype)
        return sdpa(query, key, value)

    counted = backend(counting)
    for _ in range(3):
        self_test(counted, CPU, torch.bfloat16)
    once = len(calls)
    self_test(counted, CPU, torch.float16)
    assert (once, len(calls)) == (2, 4)


def test_pytorchs_own_attention_is_not_measured():
    assert problem(BACKENDS["sdpa"], torch.device("meta"), torch.bfloat16) is None


def test_the_numbers_are_always_the_same_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    first, second = random_inputs(4, 5, CPU, torch.float32), random_inputs(4, 5, CPU, torch.float32)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
