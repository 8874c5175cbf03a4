"""The row functions of a block as one value: as they are, or compiled by ``torch.compile``.

What is compiled are pure functions of rows and prepared layers, never modules: one graph of each serves
all blocks, and weights that move (streamed blocks, a model loaded again) are ordinary inputs. The number
of rows is always left open, so token counts and chunk counts need no new graph. Attention stays outside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from subprocess import SubprocessError
from typing import Any

import torch
from torch import Tensor, nn

from . import rows
from .rope import RopeTable

log = logging.getLogger(__name__)

Backend = str | Callable[..., Any]

CUDA_GRAPHS_BACKEND = "cudagraphs"
MODES_WITHOUT_CUDA_GRAPHS = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}
FEWEST_ROWS = 2  # the compiler makes graphs of their own for sizes 0 and 1


@dataclass(frozen=True)
class BlockProgram:
    """How a block computes everything but attention.

    Args:
        keys_values: see ``rows.keys_values``; the others likewise.
        queries: of self- and cross-attention.
        add_projected: output layers of both.
        feed_forward: with its norm and gate.
        scope: to be entered around a run; sets what the functions need and puts it back.
    """

    keys_values: Callable[..., tuple[Tensor, Tensor]] = rows.keys_values
    queries: Callable[..., Tensor] = rows.queries
    add_projected: Callable[..., None] = rows.add_projected
    feed_forward: Callable[..., None] = rows.feed_forward
    scope: Callable[[], AbstractContextManager[object]] = nullcontext


EAGER = BlockProgram()


@dataclass(frozen=True)
class CompileSettings:
    """Settings of ``torch.compile``.

    Args:
        backend: ``inductor``, or any other backend of ``torch.compile``.
        mode: of inductor: ``default``, ``max-autotune``, ``max-autotune-no-cudagraphs``.
        fullgraph: a function that cannot become one graph is an error.
        dynamic: leave every size open, not only the number of rows.
        recompile_limit: graphs per function before it runs as it is; the larger of the two limits counts.
        cache_size_limit: older name of ``recompile_limit``.
    """

    backend: Backend = "inductor"
    mode: str = "default"
    fullgraph: bool = False
    dynamic: bool = False
    recompile_limit: int = 128
    cache_size_limit: int = 64

    def without_cuda_graphs(self) -> CompileSettings:
        """Themselves, with inductor's other modes instead of those that record CUDA graphs.

        A CUDA graph holds the addresses of its inputs. Here one graph serves all blocks, whose weights are
        at different addresses and move when they are streamed, so each call would copy the weights or
        record anew.
        """
        backend = "inductor" if self.backend == CUDA_GRAPHS_BACKEND else self.backend
        return replace(self, backend=backend, mode=MODES_WITHOUT_CUDA_GRAPHS.get(self.mode, self.mode))


def compile_program(settings: CompileSettings, device: torch.device | str) -> BlockProgram:
    """The row functions compiled; the first call of each compiles it.

    Args:
        settings: how. CUDA graphs are left out, which is logged.
        device: it will run on.
    """
    used = settings.without_cuda_graphs()
    if used != settings and torch.device(device).type == "cuda":
        log.info(
            "torch.compile: %s with mode %s instead of %s with mode %s: the blocks share their graphs, and a "
            "CUDA graph holds the addresses of one block's weights",
            used.backend,
            used.mode,
            settings.backend,
            settings.mode,
        )
    return BlockProgram(
        keys_values=_CompiledRows(rows.keys_values, used),
        queries=_CompiledRows(rows.queries, used),
        add_projected=_CompiledRows(rows.add_projected, used),
        feed_forward=_CompiledRows(rows.feed_forward, used),
        scope=lambda: compile_scope(used),
    )


class _CompiledRows:
    """A row function in compiled form; as it is where the compiler gives up, which is said once.

    Args:
        function: of `rows`.
        settings: how to compile it.
    """

    def __init__(self, function: Callable[..., Any], settings: CompileSettings) -> None:
        from torch._dynamo.exc import BackendCompilerFailed  # the compiler takes seconds to import

        self._failure = BackendCompilerFailed
        self._function = function
        self._graph = _torch_compile(function, settings)
        self._is_usable = True

    def __call__(self, x: Tensor, *arguments: Any) -> Any:
        """The function of rows ``x [R, ...]``."""
        if not self._is_usable or x.shape[0] < FEWEST_ROWS:
            return self._function(x, *arguments)
        _leave_rows_open(x, *arguments)
        try:
            return self._graph(x, *map(_plain, arguments))
        except self._failure as error:  # nothing was computed yet
            self._is_usable = False
            log.warning("torch.compile: %s runs as it is: %s", self._function.__name__, _explain(error))
            return self._function(x, *arguments)


def _torch_compile(function: Callable[..., Any], settings: CompileSettings) -> Callable[..., Any]:
    is_inductor = settings.backend == "inductor"
    return torch.compile(
        function,
        backend=settings.backend,
        mode=settings.mode if is_inductor and settings.mode != "default" else None,
        fullgraph=settings.fullgraph,
        dynamic=settings.dynamic,
    )


def _leave_rows_open(*arguments: Any) -> None:
    """Mark the row axis of rows ``[R, D]`` and of the rope table's rows; vectors ``[D]`` have none."""
    for value in arguments:
        tensor = value.turns if isinstance(value, RopeTable) else value
        if isinstance(tensor, Tensor) and tensor.ndim > 1:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)


def _plain(value: Any) -> Any:
    """A prepared layer or norm with tensors of one kind.

    The compiler takes parameters and tensors for different types, and tensors made in inference mode and
    outside of it too; stored weights, expanded ones and those in a streamer's slots are all of these.
    """
    if not is_dataclass(value) or isinstance(value, type):
        return value
    tensors = {each.name: getattr(value, each.name) for each in fields(value)}
    changed = {name: _alias(tensor) for name, tensor in tensors.items() if _is_foreign(tensor)}
    return replace(value, **changed) if changed else value


def _is_foreign(value: object) -> bool:
    if not isinstance(value, Tensor) or type(value) not in (Tensor, nn.Parameter):
        return False
    return type(value) is nn.Parameter or value.is_inference() != torch.is_inference_mode_enabled()


def _alias(tensor: Tensor) -> Tensor:
    """A tensor of the present mode on the same memory."""
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


@contextmanager
def compile_scope(settings: CompileSettings) -> Iterator[None]:
    """Set the compiler's limits, and put them back at the end."""
    config = torch._dynamo.config
    limit = max(settings.recompile_limit, settings.cache_size_limit, 1)
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    with config.patch({name: limit}):
        yield


def probe(settings: CompileSettings, device: torch.device | str) -> str | None:
    """Compile and run a tiny function: ``None`` when it works, else why it does not, as a sentence."""
    try:
        with compile_scope(settings):
            _torch_compile(_tiny, settings.without_cuda_graphs())(torch.ones(4, 8, device=device))
    except (RuntimeError, ImportError, OSError, SubprocessError) as error:
        return _explain(error)
    return None


def _tiny(x: Tensor) -> Tensor:
    return torch.sigmoid(x * 2 + 1)


# what a message contains in lower case, the reason, and what to do
_KNOWN = (
    ("too old", "the GPU is too old for Triton", "disconnect the compile settings"),
    ("fp8e4nv not supported", "the GPU has no fp8 (e4m3) arithmetic", "load the model without fp8 matmul"),
    (
        "c compiler",
        "Triton finds no C compiler",
        "install one (gcc; on Windows it is part of the package triton-windows)",
    ),
    ("python.h", "the headers of Python are missing", "install them (python3-dev)"),
    (
        "triton",
        "Triton is missing or does not work",
        "install triton (on Windows triton-windows) into ComfyUI's environment",
    ),
    (
        "compiler",
        "there is no C++ compiler",
        "install g++ or clang, on Windows the Build Tools of Visual Studio",
    ),
    ("invalid backend", "PyTorch has no such backend", "choose inductor"),
)


def _explain(error: Exception) -> str:
    error = getattr(error, "inner_exception", error)
    text = f"{type(error).__name__}: {error}"
    lowered = text.lower()
    for sign, reason, advice in _KNOWN:
        if sign in lowered:
            return f"{reason}; {advice}"
    first_line = next(line.strip() for line in text.splitlines() if line.strip())
    return f"the compiler failed ({first_line})"
