"""The Wan diffusion transformer and the points at which a family may extend it."""
