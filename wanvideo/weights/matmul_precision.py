"""Process-wide switches of matrix products, set for a run and put back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

logger = logging.getLogger(__name__)

SWITCH = "allow_fp16_accumulation"


def fp16_accumulation_problem() -> str | None:
    """Why sums of fp16 products cannot be kept in fp16, as a sentence; None when they can."""
    if hasattr(torch.backends.cuda.matmul, SWITCH):
        return None
    return (
        f"fp16_fast needs PyTorch 2.7 or newer, this is {torch.__version__}; fp16 is computed without its "
        "faster sums"
    )


@contextmanager
def fp16_accumulation() -> Iterator[None]:
    """Keep the sums of fp16 matrix products in fp16 while the context is open: faster, less precise.

    The switch belongs to the whole process; it is put back however the context ends. Without the switch in
    this PyTorch the context says so in the log and does nothing.
    """
    problem = fp16_accumulation_problem()
    if problem is not None:
        logger.warning(problem)
        yield
        return
    switches = torch.backends.cuda.matmul
    before = switches.allow_fp16_accumulation
    switches.allow_fp16_accumulation = True
    try:
        yield
    finally:
        switches.allow_fp16_accumulation = before
