"""Edits of the latent around the steps: inpainting, frames that must stay clean.

An edit sees the latent at four moments of a run. It never needs to know the solver.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from .noise import noised
from .solver import Step


class LatentEdit:
    """An edit that changes nothing; the others override what they need. All latents ``[B, C, T, H, W]``."""

    def on_start(self, x: Tensor, step: Step) -> Tensor:
        """The start latent, before the first ``step``."""
        del step
        return x

    def model_input(self, x: Tensor, step: Step) -> Tensor:
        """What the model is shown instead of ``x``; must not change ``x`` in place."""
        del step
        return x

    def prediction(self, velocity: Tensor, x: Tensor, step: Step) -> Tensor:
        """The guided velocity; edits get it in reverse order, so that input edits can be undone.

        Args:
            velocity: prediction for what :meth:`model_input` returned.
            x: the latent :meth:`model_input` was given.
            step: the step.
        """
        del x, step
        return velocity

    def after_step(self, x: Tensor, step: Step) -> Tensor:
        """The latent after ``step``, at ``step.sigma_next``."""
        del step
        return x

    def on_end(self) -> None:
        """Called once when the run ends, also by an error or an interrupt."""


class CleanFrames(LatentEdit):
    """Frames that are given and stay as they are, with any solver.

    The model sees them clean, and their clean estimate is pinned to themselves, so a solver moves them
    nowhere. Between steps they are put back, which also undoes the noise of stochastic solvers.

    Args:
        clean: latent ``[B or 1, C, len(frames), H, W]`` of those frames.
        frames: their indices in the video's latent.
    """

    def __init__(self, clean: Tensor, frames: Sequence[int]) -> None:
        if clean.ndim != 5 or clean.shape[2] != len(frames):
            raise ValueError(f"{len(frames)} frame indices for a latent of shape {tuple(clean.shape)}")
        self._clean = clean
        self._frames = list(frames)

    def on_start(self, x: Tensor, step: Step) -> Tensor:
        """Put the frames in."""
        del step
        return self._overwritten(x)

    def model_input(self, x: Tensor, step: Step) -> Tensor:
        """Show the frames clean."""
        del step
        return self._overwritten(x)

    def prediction(self, velocity: Tensor, x: Tensor, step: Step) -> Tensor:
        """Pin the clean estimate ``x - sigma v`` of the frames."""
        pinned = velocity.clone()
        pinned[:, :, self._frames] = (x[:, :, self._frames] - self._clean.to(x)) / step.sigma
        return pinned

    def after_step(self, x: Tensor, step: Step) -> Tensor:
        """Put the frames back."""
        del step
        return self._overwritten(x)

    def _overwritten(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, self._frames] = self._clean.to(x)
        return x


class InpaintMask(LatentEdit):
    """Differential diffusion: masked parts are made anew, the rest follows the original latent.

    After every step but the last the kept part is set to the original at the new noise level. Grey values
    are released on the way: a part of value m is kept while ``1 - m > i / n`` at step i of n
    (arXiv:2306.00950). The last step is free, so kept parts are not identical to the original.

    Args:
        mask: ``noise_mask`` of a LATENT, 1 to make anew, 0 to keep; ``[T, H, W]``, ``[T, 1, H, W]`` or
            ``[1, 1, T, H, W]`` in any size, repeated in T by a whole factor and resized to the latent.
        original: latent to keep, ``[B, C, T, H, W]``.
        noise: noise to put on it. WanVideoWrapper takes the start latent, which equals the pure noise
            only where the run starts from noise.
    """

    def __init__(self, mask: Tensor, original: Tensor, noise: Tensor) -> None:
        self._kept = 1.0 - fit_mask(mask, original.shape)
        self._original = original
        self._noise = noise

    def on_start(self, x: Tensor, step: Step) -> Tensor:
        """Bring the tensors to the latent's device once."""
        del step
        self._kept = self._kept.to(x)
        self._original = self._original.to(x)
        self._noise = self._noise.to(x)
        return x

    def after_step(self, x: Tensor, step: Step) -> Tensor:
        """Impose the kept part at the new noise level."""
        if step.is_last:
            return x
        original = noised(self._original, self._noise, step.sigma_next)
        return torch.where(self._kept > step.index / step.count, original, x)


def fit_mask(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """A mask of a LATENT as ``[1, 1, T, H, W]`` float32 for a latent of ``shape``.

    Raises:
        InputError: when it is not a mask of pictures.
    """
    frames, rows, columns = shape[-3:]
    mask = mask.float()
    if mask.ndim == 5:
        mask = mask[0, 0]
    elif mask.ndim == 4:
        mask = mask[:, 0]
    elif mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3:
        size = "x".join(str(n) for n in mask.shape)
        raise InputError("samples", f"noise_mask has size {size}; give frames x height x width")
    if mask.shape[0] < frames:
        mask = mask.repeat(frames // mask.shape[0], 1, 1)
    size = (frames, rows, columns)
    return functional.interpolate(mask[None, None], size=size, mode="trilinear", align_corners=False)
