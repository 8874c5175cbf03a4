"""Noise and the latent a run starts from.

All noise comes from one CPU generator in float32, so a seed gives the same video on every device, and the
same as in ComfyUI and WanVideoWrapper: a draw of ``[1, C, T, H, W]`` holds the numbers of ``[C, T, H, W]``.
A batch is one draw as well, as in ComfyUI; its first sample is then that of a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class StartLatent:
    """Where a run starts.

    Args:
        x: latent of the first step, ``[B, C, T, H, W]`` float32 on the CPU.
        noise: the noise drawn from the seed.
        generator: source of all later noise of the run.
    """

    x: Tensor
    noise: Tensor
    generator: torch.Generator


class NoiseSource:
    """Draws of noise in the shape of a latent.

    Args:
        generator: CPU generator; every call advances it by one latent.
        like: latent whose shape, dtype and device the draws get.
    """

    def __init__(self, generator: torch.Generator, like: Tensor) -> None:
        self._generator = generator
        self._like = like

    def __call__(self) -> Tensor:
        """The next draw."""
        return draw_noise(self._like.shape, self._generator).to(self._like)


def seeded_generator(seed: int) -> torch.Generator:
    """A CPU generator at the start of the stream of ``seed`` (0 to 2**64 - 1)."""
    generator = torch.Generator(device="cpu")
    generator.manual_seed(seed)
    return generator


def draw_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal noise, float32 on the CPU."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def start_latent(
    shape: Sequence[int],
    seed: int,
    *,
    samples: Tensor | None = None,
    generator_state: Tensor | None = None,
    noise_to: float | None = None,
) -> StartLatent:
    """The latent a run starts from, its noise, and the generator for the rest of the run.

    The noise is drawn from the seed first, then the generator takes over ``generator_state``, so that a
    run that goes on from another one draws the noise the other would have drawn next.

    Args:
        shape: ``(B, C, T, H, W)`` of the run.
        seed: 0 to 2**64 - 1.
        samples: normalised latent of the same shape to start from, or with fewer frames: its first frame
            is then repeated in front. None starts from noise.
        generator_state: state of the generator of the run that made ``samples``.
        noise_to: timestep, 0 to 1000, to noise ``samples`` to; None takes them as they are.

    Raises:
        InputError: when ``samples`` have another size.
    """
    generator = seeded_generator(seed)
    noise = draw_noise(shape, generator)
    if generator_state is not None:
        generator.set_state(_checked_state(generator_state))
    if samples is None:
        return StartLatent(noise, noise, generator)
    latent = fit_samples(samples, shape)
    if noise_to is None:
        return StartLatent(latent, noise, generator)
    return StartLatent(noised(latent, noise, noise_to / 1000.0), noise, generator)


def noised(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """``sigma * noise + (1 - sigma) * clean``."""
    return noise * sigma + (1.0 - sigma) * clean


def fit_samples(samples: Tensor, shape: Sequence[int]) -> Tensor:
    """``samples`` as a float32 CPU latent of ``shape``, with the first frame repeated in front if short.

    Raises:
        InputError: for another batch, channel or picture size, or more frames.
    """
    wanted = tuple(shape)
    found = tuple(samples.shape)
    is_same_picture = len(found) == 5 and found[:2] == wanted[:2] and found[3:] == wanted[3:]
    if not is_same_picture or found[2] > wanted[2]:
        problem = (
            f"the latent is {_size(found)}, this run needs {_size(wanted)} (batch x channels x frames x "
        )
        raise InputError(
            "samples",
            f"{problem}height x width, in latent units); use the same width, height, frames and VAE for both",
        )
    latent = samples.to(device="cpu", dtype=torch.float32)
    missing = wanted[2] - found[2]
    if missing:
        latent = torch.cat([latent[:, :, :1].repeat(1, 1, missing, 1, 1), latent], dim=2)
    return latent


def _checked_state(state: Tensor) -> Tensor:
    expected = torch.Generator(device="cpu").get_state()
    if state.dtype != expected.dtype or state.shape != expected.shape:
        problem = "the random state that came with the latent is not one of this version"
        raise InputError("samples", f"{problem}; make the latent again")
    return state.cpu()


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)
