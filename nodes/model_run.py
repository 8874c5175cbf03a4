"""A run of a model on its device: weights where the plan wants them, switches set and put back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache
from typing import TypeVar

import torch
from torch import nn

from ..wanvideo.errors import WanError
from ..wanvideo.transformer.program import (
    EAGER,
    BlockProgram,
    CompileSettings,
    compile_program,
    probe,
)
from ..wanvideo.weights.matmul_precision import fp16_accumulation
from ..wanvideo.weights.plan import MemoryPlan
from .host import ManagedModel, evict, is_out_of_memory, load, preferred_residency, say
from .run_plan import RunPlan
from .wan_model import WanVideoModel

log = logging.getLogger(__name__)

T = TypeVar("T")
GIGABYTE = 1e9


class RanOutOfMemoryError(WanError):
    """The device ran out of memory in spite of the plan.

    Args:
        plan: of the run.
        advice: what would fit.
    """

    def __init__(self, plan: MemoryPlan, advice: str) -> None:
        self.plan = plan
        super().__init__(
            f"the device ran out of memory; planned were {plan}. Another program may use the device. {advice}"
        )


class PlannedRun:
    """One run with its plan.

    Args:
        model: to run.
        plan: where its weights are.
        force_offload: take the model off its device afterwards, unless it is to stay there.
        companions: networks that are on the device with it.
    """

    def __init__(
        self,
        model: WanVideoModel,
        plan: RunPlan,
        *,
        force_offload: bool,
        companions: Sequence[ManagedModel] = (),
    ) -> None:
        self._model = model
        self._plan = plan
        self._force_offload = force_offload
        self._companions = tuple(companions)
        self._passes = 0

    def walk(
        self, blocks: Sequence[nn.Module], skip: Collection[int] = ()
    ) -> Generator[tuple[int, nn.Module], None, None]:
        """The blocks of one pass; see ``RunOptions``."""
        self._passes += 1
        return self._model.residency.walk(blocks, skip)

    def on_prepared(self) -> None:
        """Drop the embedders if the plan has other use for their room."""
        if not self._plan.embedders_stay:
            self._model.residency.drop_embedders()

    def compute(self, work: Callable[[], T], *scopes: AbstractContextManager[object]) -> T:
        """Load the model, do the work, offload.

        Args:
            work: what to do.
            scopes: entered around it.

        Raises:
            RanOutOfMemoryError: the device ran out of memory; the model is off it again.
        """
        self._announce()
        try:
            with ExitStack() as stack:
                for scope in (*self._switches(), *scopes):
                    stack.enter_context(scope)
                self._load()
                result = work()
            self._report()
            return result
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            log.debug("out of memory: %s", error)
        finally:
            if self._leaves_device():
                self._evict()
        # Outside the handler: the error keeps the frames and with them the tensors that filled the device.
        self._evict()
        raise self._out_of_memory()

    def _announce(self) -> None:
        line = f"{self._model.name}: {self._plan.memory}"
        log.info("%s", line)
        say(str(self._plan.memory))

    def _switches(self) -> list[AbstractContextManager[object]]:
        return [fp16_accumulation()] if self._model.sums_in_fp16 else []

    def _load(self) -> None:
        plan = self._plan.memory
        self._model.residency.apply(plan)
        beside = sum(companion.model_size() for companion in self._companions)
        required = max(0, plan.device_bytes - plan.weight_bytes - beside)
        load(self._model.managed, *self._companions, memory_required=required)

    def _evict(self) -> None:
        for managed in (self._model.managed, *self._companions):
            evict(managed)

    def _leaves_device(self) -> bool:
        stays = self._model.memory.stays_on_device or preferred_residency() == "resident"
        return self._force_offload and not stays

    def _report(self) -> None:
        if not self._model.memory.block_swap.block_swap_debug:
            return
        residency = self._model.residency
        streamed = sum(residency.block_bytes[index] for index in residency.streamed)
        log.info(
            "%s: block swap: %d passes, %d blocks streamed in each (%.2f GB, %.2f GB of it pinned), "
            "%.2f GB of weights on the device",
            self._model.name,
            self._passes,
            len(residency.streamed),
            streamed / GIGABYTE,
            residency.pinned_bytes / GIGABYTE,
            residency.resident_bytes / GIGABYTE,
        )

    def _out_of_memory(self) -> RanOutOfMemoryError:
        plan = self._plan.memory
        blocks = len(self._model.residency.block_bytes)
        more = min(blocks, len(plan.streamed) + max(2, blocks // 8))
        advice = "Make the video smaller or shorter, or use a model file stored in fewer bits (fp8, GGUF)"
        if len(plan.streamed) < blocks:
            advice = f"Set blocks_to_swap of WanVideo Block Swap to {more}, or make the video smaller"
        return RanOutOfMemoryError(plan, advice)


def chosen_program(model: WanVideoModel) -> BlockProgram:
    """The block functions of a run: compiled if that was asked for and works on the model's device."""
    return program_for(model.compiling, model.managed.load_device, name=model.name)


def program_for(settings: CompileSettings | None, device: torch.device, *, name: str) -> BlockProgram:
    """The block functions of a network.

    Args:
        settings: how they are compiled; ``None`` is not at all.
        device: they run on; where compiling does not work, they are as they are, and that is said.
        name: of the network, for messages.
    """
    if settings is None:
        return EAGER
    problem = probe(settings, device)
    if problem is None:
        return _compiled(settings, device)
    text = f"torch.compile is not used: {problem}"
    log.warning("%s: %s", name, text)
    say(text)
    return EAGER


@lru_cache(maxsize=4)
def _compiled(settings: CompileSettings, device: torch.device) -> BlockProgram:
    """The same functions for the same settings: what one run compiled serves the next."""
    return compile_program(settings, device)
