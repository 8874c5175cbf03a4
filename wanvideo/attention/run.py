"""What computes attention in one sampling run: chosen, checked and measured before it starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from .backend import AttentionFunction, LayoutAttention, is_installed
from .block_sparse import SPARSE_PACKAGES, block_sparse_attention
from .radial import RadialAttention, RadialSettings
from .registry import AUTO, LAYOUT_MODES, RADIAL, ULTRAVICO, check_available, choose, resolve
from .ultravico import UltraVicoAttention, ultravico_function

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttentionOverride:
    """Another mode of self-attention for some steps and blocks.

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
class AttentionSettings:
    """How a model's attention is computed.

    Args:
        mode: backend name, ``auto``, or one of ``registry.LAYOUT_MODES``.
        overrides: other modes for some steps and blocks; the last one that applies wins.
        radial: of the mode radial_sage_attention.
        ultravico_alpha: factor beyond half the trained length in the mode sageattn_ultravico, 0 to 1.
    """

    mode: str = "sdpa"
    overrides: tuple[AttentionOverride, ...] = ()
    radial: RadialSettings = field(default_factory=RadialSettings)
    ultravico_alpha: float = 0.9

    def mode_at(self, step: int, block: int) -> str:
        """The mode of self-attention in a step and block."""
        mode = next((o.mode for o in reversed(self.overrides) if o.applies(step, block)), self.mode)
        return self.radial.dense_mode if mode == RADIAL and self.radial.is_dense(step, block) else mode

    def side_mode_at(self, step: int, block: int) -> str:
        """The mode of self-attention in a step and a block of a side network, by its own number.

        Overrides for some blocks mean those of the model.
        """
        general = [o for o in self.overrides if o.blocks is None]
        mode = next((o.mode for o in reversed(general) if o.applies(step, block)), self.mode)
        return self.radial.dense_mode if mode == RADIAL and self.radial.is_side_dense(step, block) else mode

    @property
    def plain_mode(self) -> str:
        """The mode of cross-attention, where no token has a place in the video."""
        if self.mode == RADIAL:
            return self.radial.dense_mode
        return "sdpa" if self.mode in LAYOUT_MODES else self.mode

    def modes(self) -> tuple[str, ...]:
        """Every mode a run may use."""
        named = [self.plain_mode, self.mode, *(override.mode for override in self.overrides)]
        if RADIAL in named:
            named.append(self.radial.dense_mode)
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True)
class RunAttention:
    """Attention of one run.

    Args:
        settings: what was asked for.
        functions: by mode.
        chosen: for each mode, the text that the log names it by.
    """

    settings: AttentionSettings
    functions: Mapping[str, AttentionFunction | LayoutAttention]
    chosen: Mapping[str, str]

    @property
    def attention(self) -> AttentionFunction:
        """For cross-attention, and wherever no whole video is seen."""
        function = self.functions[self.settings.plain_mode]
        assert not isinstance(function, LayoutAttention)
        return function

    def attention_for(self, step: int, block: int) -> AttentionFunction | LayoutAttention:
        """For self-attention of a step and block; see ``backend.bind``."""
        return self.functions[self.settings.mode_at(step, block)]

    def side_attention_for(self, step: int, block: int) -> AttentionFunction | LayoutAttention:
        """The same for a block of a side network, by its own number."""
        return self.functions[self.settings.side_mode_at(step, block)]

    def __str__(self) -> str:
        names = [self.settings.mode, *(override.mode for override in self.settings.overrides)]
        return ", ".join(self.chosen[name] for name in dict.fromkeys(names))


def check(settings: AttentionSettings, host_backends: Mapping[str, AttentionFunction]) -> None:
    """Refuse modes that cannot work, without importing or running anything.

    Raises:
        InputError: a name is unknown, or its package is not installed.
    """
    for mode in settings.modes():
        check_available(mode, host_backends=host_backends, input_name=_input_name(mode, settings))


def prepare(
    settings: AttentionSettings,
    device: torch.device,
    dtype: torch.dtype,
    *,
    host_backends: Mapping[str, AttentionFunction] | None = None,
) -> RunAttention:
    """Find the functions of a run and measure them on its device.

    Args:
        settings: what was asked for.
        device: the model runs on.
        dtype: of the token stream.
        host_backends: functions the host program lends under a name (``comfy``).

    Raises:
        InputError: a mode is unknown, its package is not installed, or it does not work on the device.
    """
    functions: dict[str, AttentionFunction | LayoutAttention] = {}
    chosen: dict[str, str] = {}
    for mode in settings.modes():
        if mode == RADIAL:
            functions[mode], way = _radial(settings.radial, device, dtype)
            chosen[mode] = f"{mode} ({way}, dense: {settings.radial.dense_mode})"
        elif mode == ULTRAVICO:
            functions[mode], way = _ultravico(settings.ultravico_alpha, device, dtype)
            chosen[mode] = f"{mode} ({way}, alpha {settings.ultravico_alpha:g})"
        else:
            named = choose(device, dtype) if mode == AUTO else mode
            input_name = _input_name(mode, settings)
            functions[mode] = resolve(
                named, device=device, dtype=dtype, host_backends=host_backends, input_name=input_name
            )
            chosen[mode] = f"auto ({named})" if mode == AUTO else mode
    return RunAttention(settings, functions, chosen)


def _input_name(mode: str, settings: AttentionSettings) -> str:
    others = (settings.mode, *(override.mode for override in settings.overrides))
    return "attention_mode" if mode in others else "dense_attention_mode"


def _radial(
    settings: RadialSettings, device: torch.device, dtype: torch.dtype
) -> tuple[RadialAttention, str]:
    executor, passed_over = block_sparse_attention(device, dtype)
    if executor.name not in SPARSE_PACKAGES:
        log.warning(
            "%s: the sparse sage kernel is not available (%s); computed with %s",
            RADIAL,
            passed_over,
            executor.name,
        )
    return RadialAttention(executor, settings.decay_factor, settings.block_size), executor.name


def _ultravico(alpha: float, device: torch.device, dtype: torch.dtype) -> tuple[UltraVicoAttention, str]:
    function, way = ultravico_function(device, dtype)
    missing = "" if is_installed("sageattention") else " and sageattention is not installed"
    log.warning(
        "%s: no released package has the sage kernel with decay%s, so that kernel is not available; "
        "computed with %s, to the same rule",
        ULTRAVICO,
        missing,
        way,
    )
    return UltraVicoAttention(alpha, function), way
