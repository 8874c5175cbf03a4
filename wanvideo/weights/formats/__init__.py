"""Storage formats of weight matrices: one file per format, and `describe` which tells what a file uses."""

from .base import DENSE, DenseLinear, PreparedLinear, WeightFormat

__all__ = ["DENSE", "DenseLinear", "PreparedLinear", "WeightFormat"]
