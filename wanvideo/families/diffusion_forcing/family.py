"""Diffusion forcing as the engine sees it: frames of their own timestep, which any Wan model takes."""

from __future__ import annotations

from ..family import Family


class DiffusionForcing(Family):
    """Needs no weights; the frames-per-second embedding of SkyReels V2 is not here yet, see README.md."""

    name = "diffusion_forcing"


FAMILY = DiffusionForcing()
