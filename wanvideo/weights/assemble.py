"""Fill a module built on the meta device from a checkpoint.

Names and shapes are compared before any tensor is read; then each tensor becomes a parameter on its own:
a view on the mapped file where the dtype fits, else a cast copy. Peak memory is the module's final size
plus one tensor of the file; what fits already costs no memory but page cache.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from ..errors import ModelFileError
from .checkpoint import Checkpoint
from .formats import DENSE
from .formats.expect import decode, is_stored_number, needs_decoding, wan_linears

logger = logging.getLogger(__name__)

# Keys that some repacks carry and nothing needs: markers, and tables every implementation computes.
HARMLESS_KEYS = ("model_type.*", "freqs", "freqs.*", "rope.freqs*", "*.num_batches_tracked")
NAMES_SHOWN = 5
_CHECK_CHUNK = 1 << 20
# Without its sign bit, a byte from here on is NaN or infinite. float8_e8m0fnu holds scales and is left alone.
LOWEST_SPECIAL_BYTE = {torch.float8_e4m3fn: 0x7F, torch.float8_e5m2: 0x7C}


@dataclass(frozen=True)
class AssignReport:
    """What became of the file's tensors.

    Args:
        viewed_bytes: bytes that stay in the mapped file.
        copied_bytes: bytes allocated for casts.
        unexpected: keys of the file the module has no place for.
    """

    viewed_bytes: int
    copied_bytes: int
    unexpected: tuple[str, ...]


def assign(
    module: nn.Module,
    checkpoint: Checkpoint,
    *,
    dtype_of: Callable[[str, Tensor], torch.dtype | None],
    ignore: Iterable[str] = (),
    check_values: bool = True,
) -> AssignReport:
    """Give every parameter and persistent buffer of `module` its tensor from `checkpoint`.

    Args:
        module: built on the meta device; frozen afterwards (no gradients).
        checkpoint: in the module's key names.
        dtype_of: storage dtype for (key, meta tensor); None keeps the file's. Of a packed or scaled tensor
            that is no part of a `WanLinear` the numbers are decoded into it.
        ignore: further keys, or patterns of keys (`fnmatch`), that may be in the file without a word;
            what `formats.expect.expect_formats` returned belongs here.
        check_values: look for NaN and infinity; one pass over the file at memory speed.

    Raises:
        ModelFileError: weights are missing, have another shape or kind, or are not finite.
    """
    targets = module.state_dict(keep_vars=True)
    kept = _kept_as_stored(module)
    _check_names(checkpoint, targets)
    _check_shapes(checkpoint, {key: target for key, target in targets.items() if key not in kept})
    viewed = copied = 0
    with torch.inference_mode(False):  # parameters stay ordinary tensors, which torch.compile asks for
        for key, target in targets.items():
            is_kept = key in kept
            dtype = target.dtype if is_kept else dtype_of(key, target)
            tensor, is_view = _tensor(checkpoint, key, dtype, is_kept=is_kept)
            if is_view:
                viewed += tensor.nbytes
            else:
                copied += tensor.nbytes
                checkpoint.release(key)
            _replace(module, key, tensor)
    _check_nothing_on_meta(module)
    if check_values:
        _check_values(checkpoint, module)
    return AssignReport(viewed, copied, _unexpected(checkpoint, targets, ignore))


def _kept_as_stored(module: nn.Module) -> frozenset[str]:
    """Keys of linear layers that stay in the format of the file; `expect_formats` has checked them."""
    layers = ((path, layer) for path, layer in wan_linears(module) if layer.format is not DENSE)
    return frozenset(f"{path}.{name}" for path, layer in layers for name in layer.stored())


def _tensor(
    checkpoint: Checkpoint, key: str, dtype: torch.dtype | None, *, is_kept: bool
) -> tuple[Tensor, bool]:
    """A tensor of the file in `dtype`, and whether it is a view on the file."""
    if not is_kept and needs_decoding(checkpoint, key):
        return decode(checkpoint, key, dtype or torch.float32), False
    stored = checkpoint.tensor(key)
    tensor = stored.to(dtype or stored.dtype)
    return tensor, tensor is stored and not checkpoint.is_made(key)


def _check_values(checkpoint: Checkpoint, module: nn.Module) -> None:
    not_finite = [key for key, tensor in module.state_dict().items() if not is_finite(tensor)]
    if not_finite:
        raise ModelFileError(
            checkpoint.path,
            f"holds NaN or infinite values in {_listed(not_finite)}; the file is damaged or the precision "
            "too narrow for it: download it again or choose bf16",
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite. One pass without temporaries (minimum and maximum carry both)."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    if tensor.dtype.itemsize > 1:
        low, high = torch.aminmax(tensor)
        return bool(torch.isfinite(low) & torch.isfinite(high))
    lowest_special = LOWEST_SPECIAL_BYTE.get(tensor.dtype)
    if lowest_special is None:
        return True
    magnitudes = tensor.reshape(-1).view(torch.uint8)
    return all(int((part & 0x7F).max()) < lowest_special for part in magnitudes.split(_CHECK_CHUNK))


def _check_names(checkpoint: Checkpoint, targets: dict[str, Tensor]) -> None:
    missing = [key for key in targets if key not in checkpoint]
    if missing:
        raise ModelFileError(
            checkpoint.path,
            f"{len(missing)} of {len(targets)} weights are missing: {_listed(missing)}. The file is "
            "incomplete or of another model",
        )


def _check_shapes(checkpoint: Checkpoint, targets: dict[str, Tensor]) -> None:
    wrong = [
        f"{key} has shape {list(checkpoint.shape(key))}, expected {list(target.shape)}"
        for key, target in targets.items()
        if checkpoint.shape(key) != tuple(target.shape)
    ]
    if wrong:
        raise ModelFileError(
            checkpoint.path, f"{len(wrong)} weights have the wrong shape: {_listed(wrong, separator='; ')}"
        )
    not_numbers = [
        f"{key} ({checkpoint.dtype(key)})"
        for key, target in targets.items()
        if target.is_floating_point() and not is_stored_number(checkpoint, key)
    ]
    if not_numbers:
        raise ModelFileError(
            checkpoint.path,
            f"{len(not_numbers)} weights are stored as integers, in a quantised format this version does "
            f"not read: {_listed(not_numbers)}",
        )


def _unexpected(checkpoint: Checkpoint, targets: dict[str, Tensor], ignore: Iterable[str]) -> tuple[str, ...]:
    exact = frozenset(ignore)
    patterns = (*HARMLESS_KEYS, *(name for name in exact if any(sign in name for sign in "*?[")))
    unexpected = tuple(
        key
        for key in checkpoint
        if key not in targets
        and key not in exact
        and not any(fnmatchcase(key, pattern) for pattern in patterns)
    )
    if unexpected:
        logger.warning(
            "%s: %d unexpected weights are not used: %s",
            checkpoint.path.name,
            len(unexpected),
            _listed(unexpected),
        )
    return unexpected


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    shown = separator.join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown}{separator}and {len(names) - NAMES_SHOWN} more"


def _replace(module: nn.Module, key: str, tensor: Tensor) -> None:
    path, _, name = key.rpartition(".")
    owner = module.get_submodule(path)
    if name in owner._parameters:
        owner._parameters[name] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[name] = tensor


def _check_nothing_on_meta(module: nn.Module) -> None:
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    assert not left, f"no weights for {left}: compute tables outside the meta device"
