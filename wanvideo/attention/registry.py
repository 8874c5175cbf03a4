"""Attention backends by name: which exist, which are usable here, and why one is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from torch import Tensor

from ..errors import InputError, NotYetError
from .sdpa import sdpa

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(query [B, L, N, K], key [B, M, N, K], value [B, M, N, K]) -> [B, L, N * K]``."""


@dataclass(frozen=True)
class AttentionBackend:
    """One way to compute attention.

    Args:
        name: as the model loader offers it.
        package: Python package it needs, or ``""``.
        function: computes it; ``None`` for a backend this version cannot run.
    """

    name: str
    package: str
    function: AttentionFunction | None


BACKENDS: Mapping[str, AttentionBackend] = {
    backend.name: backend
    for backend in (
        AttentionBackend("sdpa", "", sdpa),
        AttentionBackend("flash_attn_2", "flash_attn", None),
        AttentionBackend("flash_attn_3", "flash_attn_interface", None),
        AttentionBackend("sageattn", "sageattention", None),
        AttentionBackend("sageattn_3", "sageattn3", None),
        AttentionBackend("radial_sage_attention", "sparse_sageattn", None),
        AttentionBackend("sageattn_compiled", "sageattention", None),
        AttentionBackend("sageattn_ultravico", "sageattention", None),
    )
}


def resolve(
    name: str,
    *,
    host_backends: Mapping[str, AttentionFunction] | None = None,
    input_name: str = "attention_mode",
) -> AttentionFunction:
    """The function of a backend.

    Args:
        name: the backend's name.
        host_backends: functions the host program lends under a name (``comfy``).
        input_name: the input to name in an error.

    Raises:
        InputError: unknown name, or its package is not installed.
        NotYetError: installed, but not connected in this version.
    """
    if host_backends and name in host_backends:
        return host_backends[name]
    backend = BACKENDS.get(name)
    if backend is None:
        known = ", ".join([*BACKENDS, *(host_backends or {})])
        raise InputError(input_name, f"unknown attention backend {name!r}; expected one of {known}")
    if backend.function is not None:
        return backend.function
    if find_spec(backend.package) is None:
        raise InputError(
            input_name,
            f"{name} needs the Python package {backend.package}, which is not installed; "
            "install it into ComfyUI's environment or choose sdpa",
        )
    raise NotYetError(input_name, f"{name}", "choose sdpa")
