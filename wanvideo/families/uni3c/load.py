"""From an opened file to a Uni3C controlnet with weights."""

from __future__ import annotations

import torch

from ...errors import ModelFileError
from ...weights.assemble import assign
from ...weights.checkpoint import Checkpoint
from ...weights.conversion import Conversion, converted
from ...weights.dtype_policy import storage_dtypes
from ...weights.formats.expect import expect_formats, wan_linears
from ...weights.kinds import kind_of, wrong_kind
from .network import HEAD_WIDTH, Uni3CConfig, Uni3CNetwork

KIND = "Uni3C controlnet"
PREFIX = "controlnet."  # of some keys of the authors' file, of none in repackaged ones
NAMES = {  # of the file, and here
    ".self_attn.to_q.": ".self_attn.q.",
    ".self_attn.to_k.": ".self_attn.k.",
    ".self_attn.to_v.": ".self_attn.v.",
    ".self_attn.to_out.0.": ".self_attn.o.",
}


def is_uni3c(checkpoint: Checkpoint) -> bool:
    """Whether a file is one, by key names."""
    return kind_of(checkpoint).name == KIND


def read_config(checkpoint: Checkpoint) -> Uni3CConfig:
    """Sizes of the network in a file, which may have its keys below ``controlnet.``.

    Raises:
        ModelFileError: another kind of file, an incomplete one, or one of another structure.
    """
    if not is_uni3c(checkpoint):
        raise wrong_kind(checkpoint, "a Uni3C controlnet")
    checkpoint = _renamed(checkpoint)

    def shape(key: str, rank: int) -> tuple[int, ...]:
        if key not in checkpoint:
            raise ModelFileError(checkpoint.path, f"is an incomplete Uni3C controlnet: {key} is missing")
        found = checkpoint.shape(key)
        if len(found) != rank:
            raise ModelFileError(
                checkpoint.path, f"{key} has shape {list(found)}, expected {rank} dimensions"
            )
        return found

    main_width, in_channels = shape("controlnet_patch_embedding.weight", 5)[:2]
    mask_width, mask_channels = shape("controlnet_mask_embedding.mask_proj.0.weight", 5)[:2]
    config = Uni3CConfig(
        main_width=main_width,
        width=shape("proj_in.bias", 1)[0],
        ffn_width=shape("controlnet_blocks.0.ffn.0.bias", 1)[0],
        layers=sum(key.startswith("proj_out.") and key.endswith(".bias") for key in checkpoint),
        in_channels=in_channels,
        mask_channels=mask_channels,
        mask_width=mask_width,
    )
    known = Uni3CConfig(main_width, config.width, config.ffn_width, config.layers, mask_width=mask_width)
    if config != known or config.width % HEAD_WIDTH:
        raise ModelFileError(
            checkpoint.path,
            f"is a Uni3C controlnet of {in_channels} channels, {mask_channels} mask channels and width "
            f"{config.width}; expected {known.in_channels}, {known.mask_channels} and a multiple of "
            f"{HEAD_WIDTH}",
        )
    return config


def load_uni3c(
    checkpoint: Checkpoint, *, compute_dtype: torch.dtype, conversion: Conversion | None = None
) -> Uni3CNetwork:
    """The network of a file with its tensors, which stay in the mapped file where their dtype fits.

    Args:
        checkpoint: an opened file.
        compute_dtype: of its tokens and matrix products.
        conversion: what the matrices of its blocks become where they are stored in more than 8 bit.

    Raises:
        ModelFileError: not a Uni3C controlnet; weights are missing, misshapen, not finite or in a format this
            version does not read.
    """
    config = read_config(checkpoint)
    checkpoint = _renamed(checkpoint)
    with torch.device("meta"):
        network = Uni3CNetwork(config)
    if conversion is not None:
        blocks = [f"{path}.weight" for path, _ in wan_linears(network) if "controlnet_blocks." in path]
        checkpoint = converted(checkpoint, conversion, blocks)
    used_up = expect_formats(network, checkpoint)
    dtype_of = storage_dtypes(network, checkpoint, compute_dtype=compute_dtype)
    assign(network, checkpoint, dtype_of=dtype_of, ignore=used_up)
    return network.eval()


def _renamed(checkpoint: Checkpoint) -> Checkpoint:
    def name(key: str) -> str:
        key = key.removeprefix(PREFIX)
        for theirs, ours in NAMES.items():
            key = key.replace(theirs, ours)
        return key

    return checkpoint.renamed(name)
