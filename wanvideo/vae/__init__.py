"""Video VAEs: pixels to latents and back, whole or in tiles."""
