"""Which dtype a parameter is stored in, decided by its role and never by parts of its name.

A module declares the role of its own parameters in the attribute `parameter_dtype`, on the class or,
for one layer of a general class, on the instance:

    "compute"   the dtype the user chose (default): q, k, v, o, feed-forward, text and image projections
    "fp32"      float32 whatever the user chose: patch embedding, time embedding and projection,
                modulation, norms, head

A module without the attribute follows its nearest ancestor that has one, else it is "compute". A
`WanLinear` has one of its own, so a parent does not change it: set it on the layer.

A `WanLinear` casts on use, so its weight never gets wider than in the file: bfloat16 in the file and
float32 in the role stays bfloat16, a view on the file, with the same result bit for bit. Its bias always
has the role's dtype. A layer in another format keeps its tensors as the format stores them.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint
from .linear import WanLinear

ParameterRole = Literal["fp32", "compute"]


def role_of(module: nn.Module, key: str) -> ParameterRole:
    """The role of the parameter or buffer `key` (a dotted path) of `module`."""
    role: ParameterRole = getattr(module, "parameter_dtype", "compute")
    owner = module
    for name in key.split(".")[:-1]:
        owner = owner.get_submodule(name)
        role = getattr(owner, "parameter_dtype", role)
    if role not in ("fp32", "compute"):
        raise ValueError(f"{type(owner).__name__}.parameter_dtype is {role!r}, not 'fp32' or 'compute'")
    return role


def storage_dtypes(
    module: nn.Module, checkpoint: Checkpoint, *, compute_dtype: torch.dtype
) -> Callable[[str, Tensor], torch.dtype | None]:
    """The rule `assemble.assign` asks for each parameter; None means "as the file stores it".

    Args:
        module: what is being filled; its submodules carry the roles.
        checkpoint: in the module's key names.
        compute_dtype: the user's precision.
    """

    def dtype_of(key: str, parameter: Tensor) -> torch.dtype | None:
        if not parameter.is_floating_point():
            return None
        path, _, name = key.rpartition(".")
        wanted = torch.float32 if role_of(module, key) == "fp32" else compute_dtype
        if not isinstance(module.get_submodule(path), WanLinear) or name == "bias":
            return wanted
        return None if checkpoint.dtype(key).itemsize < wanted.itemsize else wanted

    return dtype_of
