"""Errors the user can act on.

Every message is one or two plain sentences: what was given, what was expected, what to do.
The node layer adds the node's name.
"""

from pathlib import Path


class WanError(Exception):
    """A mistake in a file or an input that the user can correct."""


class ModelFileError(WanError):
    """A model file is missing, damaged, or of another kind than the place it was put in."""

    def __init__(self, path: str | Path, problem: str) -> None:
        self.path = Path(path)
        super().__init__(f"{self.path.name}: {problem}")


class InputError(WanError):
    """An input value, or a combination of inputs, that cannot work."""

    def __init__(self, input_name: str, problem: str) -> None:
        self.input_name = input_name
        super().__init__(f"{input_name}: {problem}")


class NotYetError(InputError):
    """An option the interface has and this version does not carry out."""

    def __init__(self, input_name: str, what: str, instead: str) -> None:
        super().__init__(input_name, f"{what} is not available in this version of the pack; {instead}")
