"""VACE: a video made after another video, with masks and reference pictures."""
