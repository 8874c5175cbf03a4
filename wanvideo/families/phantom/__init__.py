"""Phantom: subjects from reference pictures in a new video."""
