"""Uni3C: the camera of a rendered video, by a network beside the blocks."""
