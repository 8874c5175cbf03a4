"""An output that carries one of a list of options, typed by the list as V1 nodes type it."""

from __future__ import annotations

from comfy_api.latest import io


class OptionsType(list[str]):
    """The options as a socket type; links to every list input.

    ComfyUI compares the type of an output with that of an input by ``!=``: V3 inputs of this kind are
    called ``COMBO``, V1 inputs are the list itself.
    """

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __eq__(self, other: object) -> bool:
        return other == "COMBO" or list.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class ComboOutput(io.Combo.Output):
    """``io.Combo.Output`` whose type in ``/object_info`` is the list of options, as in older graphs."""

    @property
    def io_type(self) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The options."""
        return OptionsType(self.options)
