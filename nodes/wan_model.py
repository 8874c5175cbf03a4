"""The value of WANVIDEOMODEL: a loaded transformer and how its runs use it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..wanvideo.attention.radial import RadialSettings
from ..wanvideo.attention.run import AttentionOverride, AttentionSettings
from ..wanvideo.transformer.model import WanTransformer
from ..wanvideo.transformer.program import CompileSettings
from ..wanvideo.weights.detect import ModelSpec
from ..wanvideo.weights.residency import ModelResidency
from .host import ManagedBlocks
from .memory_settings import MemorySettings


@dataclass(frozen=True)
class WanVideoModel:
    """Value of WANVIDEOMODEL.

    Args:
        managed: the transformer, as ComfyUI's memory manager sees it.
        spec: what the file is.
        name: of the file.
        attention_mode: backend name.
        overrides: attention backends for some steps.
        radial: settings of the mode radial_sage_attention.
        ultravico_alpha: setting of the mode sageattn_ultravico.
        rms_norm: RMSNorm function.
        memory: how its weights are kept.
        compiling: how its blocks are compiled, if they are.
        sums_in_fp16: keep the sums of fp16 products in fp16 during a run.
    """

    managed: ManagedBlocks
    spec: ModelSpec
    name: str
    attention_mode: str = "sdpa"
    overrides: tuple[AttentionOverride, ...] = ()
    radial: RadialSettings = field(default_factory=RadialSettings)
    ultravico_alpha: float = 0.9
    rms_norm: str = "default"
    memory: MemorySettings = field(default_factory=MemorySettings)
    compiling: CompileSettings | None = None
    sums_in_fp16: bool = False

    @property
    def transformer(self) -> WanTransformer:
        """The module."""
        module = self.managed.model
        assert isinstance(module, WanTransformer)
        return module

    @property
    def residency(self) -> ModelResidency:
        """Where its weights are."""
        residency = self.managed.residency
        assert isinstance(residency, ModelResidency)
        return residency

    @property
    def attention(self) -> AttentionSettings:
        """What computes attention."""
        return AttentionSettings(self.attention_mode, self.overrides, self.radial, self.ultravico_alpha)
