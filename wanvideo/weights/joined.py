"""A model file joined with files of further modules (VACE, MultiTalk, ...)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from ..errors import ModelFileError
from .assemble import HARMLESS_KEYS
from .checkpoint import Checkpoint
from .formats.storage import FULL_PRECISION_MARKER
from .keys import canonical, with_current_scale_name
from .kinds import kind_of

# What module files that hold no transformer block of their own put before all of their keys.
_WRAPPERS = ("model.diffusion_model.", "diffusion_model.", "model.")
_NAMES_SHOWN = 3


def joined(base: Checkpoint, extras: Sequence[Checkpoint]) -> Checkpoint:
    """The tensors of several files as one checkpoint; each keeps the format it has in its own file.

    Args:
        base: the model, with canonical key names.
        extras: files of further modules, in any known key layout.

    Raises:
        ModelFileError: two files hold the same tensor.
    """
    whole = base
    for extra in extras:
        extra = canonical_module(extra)
        markers = [key for key in extra if key in whole and _is_marker(key)]
        twice = [key for key in extra if key in whole and key not in markers]
        if twice:
            more = f" and {len(twice) - _NAMES_SHOWN} more" if len(twice) > _NAMES_SHOWN else ""
            raise ModelFileError(
                extra.path,
                f"holds {', '.join(twice[:_NAMES_SHOWN])}{more}, which {whole.path.name} holds as well; "
                "an extra model file brings only what the main file lacks",
            )
        whole = whole.beside(extra.renamed(lambda key, drop=frozenset(markers): None if key in drop else key))
    return whole


def canonical_module(extra: Checkpoint) -> Checkpoint:
    """A module file under official names without prefix, scales under their current names."""
    found = canonical(extra)
    if found is not extra:
        return found
    wrapper = next((name for name in _WRAPPERS if all(key.startswith(name) for key in extra)), "")
    return extra.renamed(lambda key: with_current_scale_name(key[len(wrapper) :]))


def require_a_place(base: Checkpoint, extras: Sequence[Checkpoint], targets: Collection[str]) -> None:
    """Refuse an extra file of which the model uses nothing.

    Args:
        base: the model's file.
        extras: files of further modules.
        targets: keys of the model that was built for all of them.

    Raises:
        ModelFileError: says what kind of file it is.
    """
    for extra in extras:
        if not any(key in targets for key in canonical_module(extra)):
            raise ModelFileError(
                extra.path,
                f"none of its weights has a place in the model {base.path.name}: it looks like a "
                f"{kind_of(extra).name}",
            )


def _is_marker(key: str) -> bool:
    is_harmless = any(fnmatchcase(key, pattern) for pattern in HARMLESS_KEYS)
    return is_harmless or key.rsplit(".", 1)[-1] == FULL_PRECISION_MARKER
