"""From opened checkpoints to a transformer with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .transformer.model import WanTransformer
from .weights.assemble import assign
from .weights.checkpoint import Checkpoint
from .weights.conversion import Conversion, converted
from .weights.detect import ModelSpec, detect, spec_of
from .weights.dtype_policy import storage_dtypes
from .weights.formats.expect import expect_formats, wan_linears
from .weights.joined import joined, require_a_place
from .weights.keys import canonical

Extend = Callable[[WanTransformer, Checkpoint, ModelSpec], None]


@dataclass(frozen=True)
class LoadedTransformer:
    """A transformer and what is known of it."""

    transformer: WanTransformer
    spec: ModelSpec


def load_transformer(
    checkpoint: Checkpoint,
    *,
    compute_dtype: torch.dtype,
    conversion: Conversion | None = None,
    extras: Sequence[Checkpoint] = (),
    extend: Extend = lambda _model, _checkpoint, _spec: None,
) -> LoadedTransformer:
    """Build the transformer a checkpoint holds and give it the file's tensors.

    Built on the meta device; tensors are views on the mapped file wherever the dtype fits, and every linear
    layer keeps the storage format its weight has in the file.

    Args:
        checkpoint: an opened model file, in any of the known key layouts.
        compute_dtype: dtype of the token stream and the matrix products.
        conversion: what linear weights of the blocks become while they are loaded, where they are stored in
            more than 8 bit; None leaves them. `quantization.check_quantization` makes one.
        extras: opened files with further modules; their formats may differ from the model's.
        extend: lets model families add their modules before weights are assigned; it is given all files
            as one, and what they are.

    Raises:
        ModelFileError: not a Wan transformer; its weights are missing, misshapen, not finite or in a format
            this version does not read; an extra file holds what another has or nothing the model uses.
    """
    spec = detect(checkpoint)
    whole = canonical(checkpoint)
    if extras:
        whole = joined(whole, extras)
        spec = spec_of(whole)
    with torch.device("meta"):
        transformer = WanTransformer(spec.config)
        extend(transformer, whole, spec)
    require_a_place(checkpoint, extras, transformer.state_dict().keys())
    if conversion is not None:
        linears = [f"{path}.weight" for path, _ in wan_linears(transformer) if "blocks." in path]
        whole = converted(whole, conversion, linears)
    used_up = expect_formats(transformer, whole)
    dtype_of = storage_dtypes(transformer, whole, compute_dtype=compute_dtype)
    assign(transformer, whole, dtype_of=dtype_of, ignore=used_up)
    return LoadedTransformer(transformer.eval(), spec)
