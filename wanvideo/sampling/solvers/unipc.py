"""UniPC with B2(h) = exp(h) - 1, order 2, predicting the clean latent (arXiv:2302.04867)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ..solver import Denoiser, Noise, Step, log_snr, noise_ratio, weighted


@dataclass(frozen=True)
class UniPCState:
    """Memory of UniPC.

    Args:
        x: corrected latent the last step started from; None before the first step.
        clean: clean estimates at the last step and at the one before.
        sigmas: noise levels of those.
        order: order of the last prediction.
    """

    x: Tensor | None = None
    clean: tuple[Tensor, ...] = ()
    sigmas: tuple[float, ...] = ()
    order: int = 0


class UniPC:
    """Predictor of order 2 and, from the second step on, a corrector that redoes the step before."""

    name = "unipc"
    order = 2

    def init(self, x: Tensor) -> UniPCState:
        """Nothing remembered."""
        del x
        return UniPCState()

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: UniPCState, noise: Noise
    ) -> tuple[Tensor, UniPCState]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        del noise
        clean = x - step.sigma * denoise(x, step.timestep)
        if state.x is not None:
            x = _corrected(state, state.x, clean, step.sigma)
        order = min(self.order, step.steps_left, len(state.clean) + 1)
        now = UniPCState(x, (clean, *state.clean)[:2], (step.sigma, *state.sigmas)[:2], order)
        return _predicted(now, x, step.sigma_next), now


class FrameUniPC(UniPC):
    """UniPC as SkyReels V2 runs it, with a scheduler per frame (``diffusion_forcing_pipeline.py``).

    There the scheduler remembers a view of the latent, which the first step overwrites: the first corrector
    starts from the latent it corrects instead of the one before. The released models were used like this.
    """

    name = "frame_unipc"

    def step(
        self, denoise: Denoiser, x: Tensor, step: Step, state: UniPCState, noise: Noise
    ) -> tuple[Tensor, UniPCState]:
        """See :class:`~wanvideo.sampling.solver.Solver`."""
        predicted, now = super().step(denoise, x, step, state, noise)
        return predicted, now if state.x is not None else replace(now, x=predicted)


def _predicted(state: UniPCState, x: Tensor, sigma_next: float) -> Tensor:
    sigma = state.sigmas[0]
    growth = noise_ratio(sigma, sigma_next) - 1.0
    signal = (1.0 - sigma_next) * growth
    if state.order == 1:
        return weighted((sigma_next / sigma, x), (-signal, state.clean[0]))
    here = log_snr(sigma)
    ratio = (log_snr(state.sigmas[1]) - here) / (log_snr(sigma_next) - here)
    slope = 0.5 * signal / ratio
    return weighted((sigma_next / sigma, x), (slope - signal, state.clean[0]), (-slope, state.clean[1]))


def _corrected(state: UniPCState, x: Tensor, clean: Tensor, sigma: float) -> Tensor:
    last = state.sigmas[0]
    growth = noise_ratio(last, sigma) - 1.0
    signal = (1.0 - sigma) * growth
    if state.order == 1:
        return weighted((sigma / last, x), (-0.5 * signal, state.clean[0]), (-0.5 * signal, clean))
    step = log_snr(sigma) - log_snr(last)
    ratio = (log_snr(state.sigmas[1]) - log_snr(last)) / step
    first = growth / -step - 1.0
    second = first / -step - 0.5
    old = (first - 2.0 * second) / growth / (1.0 - ratio)
    new = first / growth - old
    change_old, change_new = signal * old / ratio, signal * new
    return weighted(
        (sigma / last, x),
        (change_old + change_new - signal, state.clean[0]),
        (-change_old, state.clean[1]),
        (-change_new, clean),
    )
