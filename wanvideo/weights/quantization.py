"""The `quantization` input of the model loader: what it asks for, and whether the file allows it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from ..errors import InputError
from .checkpoint import Checkpoint
from .conversion import Conversion
from .formats.describe import block_formats, fp8_dtype_name, is_dense, is_scaled_fp8
from .keys import canonical

logger = logging.getLogger(__name__)

INPUT = "quantization"
DISABLED = "disabled"
_DTYPES = {"fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
_FAST, _SCALED = "_fast", "_scaled"
# What the loader offers, in the order it offers it.
OPTIONS = (
    DISABLED,
    *(f"{name}{ending}" for name in _DTYPES for ending in ("", _FAST, _SCALED, _SCALED + _FAST)),
)


def wants_fp8_matmul(option: str) -> bool:
    """Whether an option asks for matrix products in fp8."""
    return option.endswith(_FAST)


def check_quantization(checkpoint: Checkpoint, option: str) -> Conversion | None:
    """What to convert while loading, None for nothing.

    The file decides how it is read; an option may only convert what is stored wider than 8 bit, and must not
    say something else than the file.

    Args:
        checkpoint: the main model file, in any known key layout.
        option: one of `OPTIONS`.

    Raises:
        InputError: the option contradicts the file, or is none of the known ones.
    """
    if option not in OPTIONS:
        raise InputError(INPUT, f"{option!r} is not known; choose one of {', '.join(OPTIONS)}")
    if option == DISABLED:
        return None
    formats = sorted(block_formats(canonical(checkpoint)))
    packed = [name for name in formats if not is_dense(name)]
    base = option.removesuffix(_FAST).removesuffix(_SCALED)
    wants_scales = _SCALED in option
    _check_kind(checkpoint, option, base, packed)
    if not packed:
        if wants_scales:
            raise InputError(
                INPUT,
                f"{option} is for files whose weights are scaled fp8; {checkpoint.path.name} is stored as "
                f"{_listed(formats)}. Choose {base} to convert it while loading, or disabled to keep it",
            )
        return Conversion(_DTYPES[base])
    has_scales = any(is_scaled_fp8(name) for name in packed)
    if wants_scales and not has_scales:
        raise InputError(
            INPUT,
            f"{option} is for files whose weights are scaled fp8; {checkpoint.path.name} is stored as "
            f"{_listed(packed)}, without scales. Choose {base} or disabled",
        )
    if has_scales and not wants_scales:
        logger.info(
            "%s: quantization %s, but the file is stored as %s: it is read as it is stored",
            checkpoint.path.name,
            option,
            _listed(packed),
        )
    return None


def _check_kind(checkpoint: Checkpoint, option: str, base: str, packed: Sequence[str]) -> None:
    """The file's packed matrices must be fp8, of the type the option names."""
    other = [name for name in packed if fp8_dtype_name(name) is None]
    if other:
        raise InputError(
            INPUT,
            f"{option} does not fit {checkpoint.path.name}, which is stored as {_listed(other)} already; "
            "choose disabled",
        )
    wanted = str(_DTYPES[base]).removeprefix("torch.")
    contrary = [name for name in packed if fp8_dtype_name(name) != wanted]
    if contrary:
        fitting = next(name for name in _DTYPES if name != base)
        raise InputError(
            INPUT,
            f"{option} does not fit {checkpoint.path.name}, which is stored as {_listed(packed)}; choose "
            f"disabled or {fitting}{option.removeprefix(base)}",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
