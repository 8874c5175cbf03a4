"""A control clip that is shorter or longer than the video it steers."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

LengthFit = Literal["hold", "loop", "trim"]
LENGTH_FITS: tuple[LengthFit, ...] = get_args(LengthFit)


def frame_indices(given: int, wanted: int, *, fit: LengthFit = "hold", first_repeated: int = 0) -> list[int]:
    """Which entries of a clip stand for the frames of a video.

    Args:
        given: entries of the clip, at least 1.
        wanted: frames of the video. A longer clip is cut at its end.
        fit: for a shorter clip: "hold" repeats the last entry; "loop" begins again; "trim" means that the
            video was to be cut to the clip, and holds where nobody did so.
        first_repeated: where a loop begins again.

    Returns:
        ``wanted`` indices below ``given``.
    """
    loop = range(min(first_repeated, given - 1), given)
    indices = list(range(min(given, wanted)))
    for extra in range(wanted - len(indices)):
        indices.append(loop[extra % len(loop)] if fit == "loop" else given - 1)
    return indices


def fitted_latent(latent: Tensor, frames: int, *, fit: LengthFit = "hold") -> Tensor:
    """A clip with as many latent frames as the video.

    A loop begins again at the second latent frame, since the first one of a Wan latent stands for a single
    picture and every other for four.

    Args:
        latent: ``[B, C, T, H, W]``.
        frames: wanted along T.
        fit: see :func:`frame_indices`.
    """
    given = latent.shape[2]
    if given == frames:
        return latent
    indices = frame_indices(given, frames, fit=fit, first_repeated=1)
    return latent.index_select(2, torch.tensor(indices, device=latent.device))


def fit_remark(what: str, given: int, wanted: int, *, fit: LengthFit = "hold") -> str:
    """A sentence about a clip of another length; empty when it fits.

    Args:
        what: begins the sentence: "the control video".
        given: pixel frames of the clip.
        wanted: pixel frames of the video.
        fit: see :func:`frame_indices`.
    """
    if given == wanted:
        return ""
    lengths = f"{what} has {given} frames, the video {wanted}"
    if given > wanted:
        return f"{lengths}: the last {given - wanted} are not used"
    return f"{lengths}: it {'is repeated' if fit == 'loop' else 'holds its last frame'}"
