"""The inputs of a forward that the transformer's tests use."""

from ...transformer.conftest import inputs

__all__ = ["inputs"]
