"""What the tests of Fun Control load and compare with."""

from ..fun_control.conftest import fun_files, load

__all__ = ["fun_files", "load"]
