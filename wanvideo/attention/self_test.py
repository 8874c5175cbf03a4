"""Does a backend give the right numbers on this device?

Wrong builds of attention libraries exist that run and return noise. Each backend is compared once per
library version, device and dtype with PyTorch's attention in float32, on a small random input.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from subprocess import SubprocessError

import torch
from torch import Tensor

from .backend import HEAD_WIDTH, AttentionBackend, AttentionFunction
from .sdpa import sdpa

HEADS = 4
SIZES = ((256, 256), (200, 333))  # queries, keys: whole tiles of the kernels, and neither whole nor equal


@dataclass(frozen=True)
class SelfTest:
    """Outcome for one backend, library version, device and dtype.

    Args:
        error: largest relative error; infinite when it did not run or gave no finite numbers.
        failure: what it raised, or ``""``.
    """

    error: float
    failure: str = ""


def self_test(backend: AttentionBackend, device: torch.device, dtype: torch.dtype) -> SelfTest:
    """Measured once, then remembered for as long as the program runs."""
    return _measured(backend, backend.version, str(device), device_name(device), dtype)


def problem(backend: AttentionBackend, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the backend cannot be trusted on this device, or ``None``."""
    if not backend.package:
        return None
    test = self_test(backend, device, dtype)
    place = f"on {device_name(device)} in {str(dtype).removeprefix('torch.')}"
    named = f"{backend.package} {backend.version}"
    if test.failure:
        return f"{named} does not run {place} ({test.failure})"
    if test.error > backend.tolerance:
        return (
            f"{named} gives wrong numbers {place}: relative error {test.error:.3g} against PyTorch's "
            f"attention, where {backend.tolerance:g} is the limit"
        )
    return None


def device_name(device: torch.device) -> str:
    """Of the GPU, or the type of another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@lru_cache(maxsize=64)
def _measured(
    backend: AttentionBackend, _version: str, device: str, _device_name: str, dtype: torch.dtype
) -> SelfTest:
    try:
        return SelfTest(relative_error(backend.function, sdpa, torch.device(device), dtype))
    except kernel_errors() as failure:
        return SelfTest(float("inf"), first_line(failure))


def relative_error(
    function: AttentionFunction, reference: AttentionFunction, device: torch.device, dtype: torch.dtype
) -> float:
    """``|function - reference| / |reference|``, the largest over :data:`SIZES`.

    Args:
        function: called in ``dtype``.
        reference: called in float32 with the same, rounded, numbers.
        device: to run on.
        dtype: of query, key and value.
    """
    errors = []
    for queries, keys in SIZES:
        inputs = random_inputs(queries, keys, device, dtype)
        found = function(*inputs).float()
        expected = reference(*(tensor.float() for tensor in inputs))
        error = ((found - expected).norm() / expected.norm()).item()
        errors.append(error if error == error else float("inf"))
    return max(errors)


def random_inputs(
    queries: int, keys: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of unit variance, always the same numbers."""
    generator = torch.Generator("cpu").manual_seed(0)
    query, key, value = (
        torch.randn(1, length, HEADS, HEAD_WIDTH, generator=generator).to(device, dtype)
        for length in (queries, keys, keys)
    )
    return query, key, value


def first_line(failure: Exception) -> str:
    """Kind and first line of an error; those of compilers run over pages."""
    return f"{type(failure).__name__}: {failure}".splitlines()[0][:200]


def kernel_errors() -> tuple[type[Exception], ...]:
    """What a library that does not fit the system raises when it is imported, compiled or launched."""
    triton = sys.modules.get("triton.errors")
    return (
        ArithmeticError,
        AssertionError,
        AttributeError,
        ImportError,
        LookupError,
        OSError,
        RuntimeError,
        SubprocessError,
        TypeError,
        ValueError,
        *([triton.TritonError] if triton else []),
    )
