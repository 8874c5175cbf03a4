"""Tiny random checkpoints with the official key names, for demos, tests and benchmarks."""
