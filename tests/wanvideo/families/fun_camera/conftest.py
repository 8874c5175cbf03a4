"""What the tests of Fun Control load and compare with."""

from ..fun_control.conftest import comfy_extras, fun_files, load

__all__ = ["comfy_extras", "fun_files", "load"]
