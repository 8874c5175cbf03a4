"""Encoding pixels to latents and decoding latents to pixels."""

from .latent_space import LatentSpace, latent_space_for
from .load import load_tiny_vae, load_vae
from .tiling import Tiling
from .video_vae import VideoVAE

__all__ = ["LatentSpace", "Tiling", "VideoVAE", "latent_space_for", "load_tiny_vae", "load_vae"]
