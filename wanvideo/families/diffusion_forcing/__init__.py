"""Video that goes on from given frames, each frame with its own noise level (SkyReels V2 DF)."""
