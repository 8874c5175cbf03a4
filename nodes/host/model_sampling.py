"""The part of ComfyUI's MODEL that makes sigmas."""

from __future__ import annotations

from typing import Any

from comfy.model_sampling import ModelSamplingDiscreteFlow


class SigmasOnlyModel:
    """A MODEL without weights, for ComfyUI's scheduler nodes: they ask it for the model's sigmas only.

    Args:
        shift: of the flow-matching schedule, above 0.
    """

    def __init__(self, shift: float) -> None:
        self._sampling = ModelSamplingDiscreteFlow()
        self._sampling.set_parameters(shift=shift)

    def get_model_object(self, name: str) -> Any:
        """``model_sampling``; it has no other object."""
        if name == "model_sampling":
            return self._sampling
        return getattr(self, name)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"This MODEL has no weights, and no '{name}': it only gives sigmas to scheduler nodes like "
            "BasicScheduler"
        )
