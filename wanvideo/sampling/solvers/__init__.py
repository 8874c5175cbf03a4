"""The solvers by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..schedules import solver_name
from ..solver import AnySolver
from .bridge import BridgeEuler
from .deis import DEIS
from .dpmpp import DPMpp2M, DPMpp2MSDE
from .er_sde import ERSDE
from .euler import Euler, FrameEuler
from .lcm import LCM, RCM
from .res_multistep import RES2M
from .sa_ode import SAODE
from .unipc import UniPC

_ALL: tuple[AnySolver, ...] = (
    Euler(), FrameEuler(), UniPC(), DPMpp2M(), DPMpp2MSDE(), LCM(), RCM(), DEIS(), RES2M(), ERSDE(), SAODE(),
    BridgeEuler(),
)  # fmt: skip

SOLVERS: Mapping[str, AnySolver] = MappingProxyType({solver.name: solver for solver in _ALL})


def solver_for(scheduler: str) -> AnySolver:
    """The solver that goes with a scheduler name.

    Raises:
        InputError: for an unknown scheduler.
    """
    return SOLVERS[solver_name(scheduler)]
