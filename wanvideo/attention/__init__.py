"""Attention backends: a registry and one file per library."""
