"""Switch the fp8 matrix product on (the `*_fast` settings)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import nn

from .formats import DENSE
from .formats.expect import wan_linears
from .formats.fp8_product import FP8_DTYPES, ProductReport, layer_problem
from .formats.scaled import ScaledFormat


def use_fp8_matmul(module: nn.Module, device: torch.device, dtype: torch.dtype) -> ProductReport:
    """Let the layers of `module` that are stored as fp8 multiply in fp8 where that is possible.

    Layers for which it is not keep expanding their weight; nothing is converted.

    Args:
        module: with weights, wherever they lie.
        device: where it will run.
        dtype: of the tokens.

    Returns:
        How many layers multiply in fp8 and why others do not; its text is for the log.
    """
    multiplied, expanded = 0, Counter[str]()
    for _, layer in wan_linears(module):
        form = layer.format
        if layer.weight.dtype not in FP8_DTYPES or not (form is DENSE or isinstance(form, ScaledFormat)):
            continue
        is_exact = isinstance(form, ScaledFormat) and form.is_exact
        problem = "the file asks for full precision" if is_exact else None
        problem = problem or layer_problem(layer.stored(), device, dtype)
        if problem is not None:
            expanded[problem] += 1
            continue
        multiplied += 1
        base = form if isinstance(form, ScaledFormat) else ScaledFormat(name="fp8")
        layer.format = replace(base, uses_fp8_product=True)
    return ProductReport(multiplied, expanded)
