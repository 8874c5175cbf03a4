"""From an opened checkpoint to a transformer with weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .transformer.model import WanTransformer
from .weights.assemble import assign
from .weights.checkpoint import Checkpoint
from .weights.detect import ModelSpec, detect
from .weights.dtype_policy import storage_dtypes
from .weights.keys import canonical


@dataclass(frozen=True)
class LoadedTransformer:
    """A transformer and what is known of it."""

    transformer: WanTransformer
    spec: ModelSpec


def load_transformer(
    checkpoint: Checkpoint,
    *,
    compute_dtype: torch.dtype,
    extend: Callable[[WanTransformer, Checkpoint], None] = lambda _model, _checkpoint: None,
) -> LoadedTransformer:
    """Build the transformer a checkpoint holds and give it the file's tensors.

    Built on the meta device; tensors are views on the mapped file wherever the dtype fits.

    Args:
        checkpoint: an opened model file, in any of the known key layouts.
        compute_dtype: dtype of the token stream and the matrix products.
        extend: lets model families add their modules before weights are assigned.

    Raises:
        ModelFileError: not a Wan transformer, or its weights are missing, misshapen or not finite.
    """
    checkpoint = canonical(checkpoint)
    spec = detect(checkpoint)
    with torch.device("meta"):
        transformer = WanTransformer(spec.config)
        extend(transformer, checkpoint)
    assign(
        transformer,
        checkpoint,
        dtype_of=storage_dtypes(transformer, checkpoint, compute_dtype=compute_dtype),
    )
    return LoadedTransformer(transformer.eval(), spec)
