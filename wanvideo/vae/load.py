"""From a model file to a VAE."""

from __future__ import annotations

import logging

import torch
from torch import nn

from ..errors import InputError, ModelFileError
from ..weights.assemble import assign
from ..weights.checkpoint import Checkpoint
from ..weights.kinds import wrong_kind
from .latent_space import VAE_NAMES, LatentSpace, latent_space_for
from .layouts import read_layout
from .network import WanVae
from .tiny import TinyVae
from .video_vae import VideoVAE

logger = logging.getLogger(__name__)

_ON_VAE_LATENTS = "lighttae"  # part of the file name


def load_vae(
    checkpoint: Checkpoint, *, dtype: torch.dtype, use_cpu_cache: bool = False, verbose: bool = False
) -> VideoVAE:
    """A Wan VAE, 2.1 or 2.2, or a TAEHV; what it is and how wide comes from the file.

    Official key names with or without a prefix, or those of diffusers.

    Args:
        checkpoint: the file.
        dtype: what the VAE computes in.
        use_cpu_cache: keep the causal layers' earlier frames in host memory: slower, less device memory.
        verbose: log each run at INFO instead of DEBUG.

    Raises:
        ModelFileError: another kind of file, or an incomplete one.
    """
    found = read_layout(checkpoint)
    if found is None:
        raise wrong_kind(checkpoint, "a Wan VAE")
    if found.is_tiny:
        return load_tiny_vae(checkpoint, dtype=dtype, verbose=verbose)
    with torch.device("meta"):
        network = WanVae(found.checkpoint)
    space = _latent_space(checkpoint, network.latent_channels)
    _fill(network, found.checkpoint, dtype)
    return VideoVAE(
        network,
        latent_space=space,
        name=VAE_NAMES[space.channels],
        use_cpu_cache=use_cpu_cache,
        verbose=verbose,
    )


def load_tiny_vae(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    takes_normalised_latents: bool | None = None,
    verbose: bool = False,
) -> VideoVAE:
    """A TAEHV autoencoder: taew2_1, taew2_2, or a lighttae.

    Args:
        checkpoint: the file.
        dtype: what the VAE computes in.
        takes_normalised_latents: whether the network works on the latents the diffusion model sees; None
            asks the file name. Names and shapes of the weights are the same either way: the lighttae files
            work on the VAE's own latents, all others on normalised ones.
        verbose: log each run at INFO instead of DEBUG.

    Raises:
        ModelFileError: another kind of file, or an incomplete one.
    """
    found = read_layout(checkpoint)
    if found is None or not found.is_tiny:
        raise wrong_kind(checkpoint, "a tiny Wan VAE (TAEHV)")
    if takes_normalised_latents is None:
        takes_normalised_latents = _ON_VAE_LATENTS not in checkpoint.path.name.lower()
    with torch.device("meta"):
        network = TinyVae(found.checkpoint, takes_normalised_latents=takes_normalised_latents)
    space = _latent_space(checkpoint, network.latent_channels)
    _fill(network, found.checkpoint, dtype)
    name = f"tiny {VAE_NAMES[space.channels]}"
    logger.log(
        logging.INFO if verbose else logging.DEBUG,
        "%s works on %s latents",
        checkpoint.path.name,
        "normalised" if takes_normalised_latents else "un-normalised",
    )
    return VideoVAE(network, latent_space=space, name=name, verbose=verbose)


def _latent_space(checkpoint: Checkpoint, channels: int) -> LatentSpace:
    try:
        return latent_space_for(channels)
    except InputError as error:
        raise ModelFileError(
            checkpoint.path, f"a VAE with {channels} latent channels; expected 16 (Wan 2.1) or 48 (Wan 2.2)"
        ) from error


def _fill(network: nn.Module, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    assign(network, checkpoint, dtype_of=lambda _key, _tensor: dtype)
    network.eval()
