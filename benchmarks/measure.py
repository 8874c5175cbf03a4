"""Time and peak tensor memory of a call, for the benchmarks."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


class StorageTracker(TorchDispatchMode):
    """Counts the bytes of tensor storages that are created and still alive.

    Works on any device; storages that existed before (weights, inputs) are not counted. Temporaries
    inside one operator of a library are invisible to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def ignore(self, tensors: Any) -> None:
        """Do not count the storages of these tensors."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, torch.Tensor):
                self._known.add(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, then count what it returned."""
        del types
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def peak_bytes(call: Callable[[], T], existing: Any) -> tuple[T, int]:
    """The result of ``call``, and the largest sum of live tensors it made, in bytes.

    Storages of ``existing`` are not counted.
    """
    tracker = StorageTracker()
    tracker.ignore(existing)
    with torch.inference_mode(), tracker:
        result = call()
    return result, tracker.peak


def rounds(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each call over ``repeats`` rounds that run them in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for _ in range(repeats):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                times[name].append(time.perf_counter() - start)
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}
