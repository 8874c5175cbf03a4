"""The Wan video engine: transformer, weights, conditioning, sampling, encoders and VAEs; no ComfyUI."""
