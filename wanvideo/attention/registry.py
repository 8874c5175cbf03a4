"""Attention backends by name: which exist, which are usable here, and why one is not.

A backend is a plain function of query, key and value (``backend.AttentionFunction``): a block may call it
per chunk of query rows. Two modes depend on where in the video a token is, radial_sage_attention and
sageattn_ultravico; they are ``backend.LayoutAttention`` and made by ``run.prepare``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from ..errors import InputError
from .backend import (
    HEAD_WIDTH,
    AttentionBackend,
    AttentionFunction,
    BoundAttention,
    LayoutAttention,
    TokenLayout,
    bind,
    needs_whole_sequence,
)
from .block_sparse import SPARSE_SAGE_ATTENTION
from .flash2 import FLASH_ATTENTION_2
from .flash3 import FLASH_ATTENTION_3
from .sage import SAGE_ATTENTION, SAGE_ATTENTION_COMPILED, SAGE_ATTENTION_VARLEN
from .sage3 import SAGE_ATTENTION_3
from .sdpa import sdpa
from .self_test import problem

__all__ = [
    "AUTO",
    "BACKENDS",
    "LAYOUT_MODES",
    "RADIAL",
    "ULTRAVICO",
    "AttentionBackend",
    "AttentionFunction",
    "BoundAttention",
    "LayoutAttention",
    "TokenLayout",
    "available",
    "bind",
    "check_available",
    "choose",
    "needs_whole_sequence",
    "resolve",
]

log = logging.getLogger(__name__)

AUTO = "auto"
SDPA = "sdpa"
RADIAL = "radial_sage_attention"
ULTRAVICO = "sageattn_ultravico"
LAYOUT_MODES = (RADIAL, ULTRAVICO)

BACKENDS: Mapping[str, AttentionBackend] = {
    backend.name: backend
    for backend in (
        AttentionBackend(SDPA, sdpa),
        FLASH_ATTENTION_2,
        FLASH_ATTENTION_3,
        SAGE_ATTENTION,
        SAGE_ATTENTION_3,
        SAGE_ATTENTION_COMPILED,
        SAGE_ATTENTION_VARLEN,
        SPARSE_SAGE_ATTENTION,
    )
}

FASTEST_FIRST = ("sageattn", "flash_attn_3", "flash_attn_2", SDPA)
"""What ``auto`` tries. Not sageattn_3: its 4 bits change the video, so it is only used when named."""


def check_available(
    name: str,
    *,
    host_backends: Mapping[str, AttentionFunction] | None = None,
    input_name: str = "attention_mode",
) -> None:
    """Refuse a mode that cannot work, without importing or running anything.

    Raises:
        InputError: unknown name, or its package is not installed.
    """
    hosts = host_backends or {}
    if name in hosts or name == AUTO or name in LAYOUT_MODES:
        return
    backend = BACKENDS.get(name)
    if backend is None:
        known = ", ".join([*BACKENDS, *LAYOUT_MODES, *hosts, AUTO])
        raise InputError(input_name, f"unknown attention backend {name!r}; expected one of {known}")
    if not backend.is_installed:
        raise InputError(
            input_name,
            f"{name} needs the Python package {backend.package}, which is not installed; "
            "install it into ComfyUI's environment or choose sdpa",
        )


def resolve(
    name: str,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.bfloat16,
    host_backends: Mapping[str, AttentionFunction] | None = None,
    input_name: str = "attention_mode",
) -> AttentionFunction:
    """The function of a backend.

    Args:
        name: the backend's name, or ``auto``.
        device: where it will run: checked and measured there; ``None`` only checks that it is installed.
        dtype: of the token stream.
        host_backends: functions the host program lends under a name (``comfy``).
        input_name: the input to name in an error.

    Raises:
        InputError: unknown name, its package is not installed, it does not support the device or the
            dtype, or its numbers are wrong there.
    """
    check_available(name, host_backends=host_backends, input_name=input_name)
    if host_backends and name in host_backends:
        return host_backends[name]
    if name == AUTO:
        name = choose(device, dtype) if device is not None else SDPA
    if name in LAYOUT_MODES:
        raise InputError(input_name, f"{name} depends on the layout of the video; choose sdpa here")
    backend = BACKENDS[name]
    reason = _refusal(backend, device, dtype) if device is not None else None
    if reason is not None:
        raise InputError(input_name, f"{name} cannot be used: {reason}; choose sdpa or auto")
    return backend.function


def choose(device: torch.device, dtype: torch.dtype) -> str:
    """The fastest backend that is installed, supports the device and gives the right numbers there.

    In float32 that is sdpa: the other ones would round to half precision.
    """
    if dtype == torch.float32:
        return SDPA
    passed_over = []
    for name in FASTEST_FIRST:
        backend = BACKENDS[name]
        if not backend.is_installed:
            continue
        reason = _refusal(backend, device, dtype)
        if reason is None:
            if passed_over:
                log.warning("attention auto: %s is used; %s", name, "; ".join(passed_over))
            return name
        passed_over.append(reason)
    return SDPA


def available(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> tuple[str, ...]:
    """Names of the backends that work on a device, measured there."""
    return tuple(
        name
        for name, backend in BACKENDS.items()
        if backend.is_installed and _refusal(backend, device, dtype) is None
    )


def _refusal(backend: AttentionBackend, device: torch.device, dtype: torch.dtype) -> str | None:
    unsupported = backend.supports(device, dtype, HEAD_WIDTH)
    if unsupported is not None:
        return f"{backend.package or backend.name}: {unsupported}"
    return problem(backend, device, dtype)
