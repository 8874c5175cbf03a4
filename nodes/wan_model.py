"""The value of WANVIDEOMODEL: a loaded transformer and how its runs use it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..wanvideo.attention.registry import AttentionFunction, resolve
from ..wanvideo.transformer.model import WanTransformer
from ..wanvideo.weights.detect import ModelSpec
from .host import ManagedModel, comfy_attention
from .memory_settings import MemorySettings


@dataclass(frozen=True)
class AttentionOverride:
    """Another attention backend for some steps and blocks.

    Args:
        mode: backend name.
        start_step: first step, counted within the sampler.
        end_step: one past the last step.
        blocks: block numbers, or ``None`` for all.
    """

    mode: str
    start_step: int
    end_step: int
    blocks: frozenset[int] | None

    def applies(self, step: int, block: int) -> bool:
        """Whether this step and block use the override."""
        return self.start_step <= step < self.end_step and (self.blocks is None or block in self.blocks)


@dataclass(frozen=True)
class WanVideoModel:
    """Value of WANVIDEOMODEL.

    Args:
        managed: the transformer, as ComfyUI's memory manager sees it.
        spec: what the file is.
        name: of the file.
        attention_mode: backend name.
        rms_norm: RMSNorm function.
        overrides: attention backends for some steps.
        memory: how its weights are kept.
    """

    managed: ManagedModel
    spec: ModelSpec
    name: str
    attention_mode: str = "sdpa"
    rms_norm: str = "default"
    overrides: tuple[AttentionOverride, ...] = ()
    memory: MemorySettings = field(default_factory=MemorySettings)

    @property
    def transformer(self) -> WanTransformer:
        """The module."""
        module = self.managed.model
        assert isinstance(module, WanTransformer)
        return module

    def attention(self) -> AttentionFunction:
        """The function of the chosen backend."""
        return attention_function(self.attention_mode)

    def attention_for(self, step: int, block: int) -> AttentionFunction | None:
        """The function an override asks for, if any; the last override wins."""
        for override in reversed(self.overrides):
            if override.applies(step, block):
                return attention_function(override.mode)
        return None


def attention_function(mode: str) -> AttentionFunction:
    """The function of a backend name, ComfyUI's own included."""
    return resolve(mode, host_backends={"comfy": comfy_attention})
