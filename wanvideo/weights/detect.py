"""What a transformer file is: sizes, capabilities, number format and likely release, from its header."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from ..errors import ModelFileError
from ..transformer.config import HEAD_WIDTH, WanConfig
from .capabilities import CAPABILITIES, Capability, capabilities_of
from .checkpoint import Checkpoint
from .formats.describe import block_formats, is_dense, require_readable
from .keys import canonical
from .kinds import WAN_TRANSFORMER, kind_of, wrong_kind
from .variants import Variant, variants_of

PATCH_VALUES = 4  # latents of one token: 1 x 2 x 2
_NAMES_SHOWN = 2


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a transformer before it is loaded.

    Args:
        config: its sizes.
        capabilities: what it can take as input (names in `capabilities`).
        dtypes: storage dtypes of the file's matrices.
        formats: what the matrices of its blocks are stored as, by the names messages use.
        variants: the releases it may be; several where shapes cannot tell them apart.
    """

    config: WanConfig
    capabilities: frozenset[str]
    dtypes: frozenset[torch.dtype]
    variants: tuple[Variant, ...] = ()
    formats: frozenset[str] = frozenset()

    @property
    def variant(self) -> Variant | None:
        """The most common release of these shapes."""
        return self.variants[0] if self.variants else None

    @property
    def name(self) -> str:
        """For messages: the release, the most common ones that it may be, or the sizes."""
        if self.variants:
            return _alternatives([variant.name for variant in self.variants])
        sizes = self.config
        return (
            f"Wan transformer of width {sizes.dim}, {sizes.layers} blocks, "
            f"{sizes.in_channels} to {sizes.out_channels} channels"
        )

    def __str__(self) -> str:
        stored = ", ".join(sorted(self.formats))
        return f"{self.name} ({', '.join(sorted(self.capabilities))}; stored as {stored})"


def detect(checkpoint: Checkpoint, *, rules: tuple[Capability, ...] = CAPABILITIES) -> ModelSpec:
    """Read what a transformer file is from its key names and shapes; no tensor is loaded.

    Args:
        checkpoint: in any known key layout.
        rules: what counts as a capability.

    Raises:
        ModelFileError: another kind of file, an incomplete one, or a format this version does not read.
    """
    if kind_of(checkpoint) is not WAN_TRANSFORMER:
        raise wrong_kind(checkpoint, "a Wan transformer")
    return spec_of(canonical(checkpoint), rules=rules)


def spec_of(checkpoint: Checkpoint, *, rules: tuple[Capability, ...] = CAPABILITIES) -> ModelSpec:
    """`detect` for what is known to be a transformer, with canonical key names: a file joined with others.

    Raises:
        ModelFileError: it is incomplete, or stored in a format this version does not read.
    """
    require_readable(checkpoint)
    return _spec(checkpoint, rules)


def describe_file(checkpoint: Checkpoint) -> str:
    """A human name for any model file, for messages: "Wan 2.1 VAE", "LoRA", "Wan transformer (...)"."""
    kind = kind_of(checkpoint)
    if kind is not WAN_TRANSFORMER:
        return kind.name
    checkpoint = canonical(checkpoint)
    packed = sorted(name for name in block_formats(checkpoint) if not is_dense(name))
    stored = f", {', '.join(packed)}" if packed else ""
    try:
        spec = _spec(checkpoint, CAPABILITIES)
    except ModelFileError:
        return f"incomplete {kind.name}{stored}"
    return f"{kind.name} ({spec.name}){stored}" if spec.variants else f"{spec.name}{stored}"


def _alternatives(names: list[str]) -> str:
    shown, rest = names[:_NAMES_SHOWN], len(names) - _NAMES_SHOWN
    if rest > 0:
        shown.append(f"{rest} more of these shapes")
    return " or ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)


def _spec(checkpoint: Checkpoint, rules: tuple[Capability, ...]) -> ModelSpec:
    sizes = _sizes(checkpoint)
    capabilities = capabilities_of(checkpoint, sizes, rules)
    dtypes = frozenset(
        checkpoint.dtype(key)
        for key in checkpoint
        if key.startswith("blocks.") and key.endswith(".weight") and len(checkpoint.shape(key)) > 1
    )
    variants = variants_of(sizes, capabilities)
    return ModelSpec(sizes, capabilities, dtypes, variants, block_formats(checkpoint))


def _sizes(checkpoint: Checkpoint) -> WanConfig:
    dim, in_channels = _shape(checkpoint, "patch_embedding.weight", rank=5)[:2]
    if not dim or dim % HEAD_WIDTH:
        raise ModelFileError(
            checkpoint.path, f"has width {dim}; a Wan transformer's width is a multiple of {HEAD_WIDTH}"
        )
    has_image_branch = "blocks.0.cross_attn.k_img.weight" in checkpoint
    sizes = WanConfig(
        dim=dim,
        ffn_dim=_shape(checkpoint, "blocks.0.ffn.0.weight", rank=2)[0],
        heads=dim // HEAD_WIDTH,
        layers=_block_count(checkpoint),
        in_channels=in_channels,
        out_channels=_shape(checkpoint, "head.head.weight", rank=2)[0] // PATCH_VALUES,
        frequency_width=_shape(checkpoint, "time_embedding.0.weight", rank=2)[1],
        has_image_branch=has_image_branch,
    )
    widths = {}
    if "text_embedding.0.weight" in checkpoint:
        widths["text_width"] = _shape(checkpoint, "text_embedding.0.weight", rank=2)[1]
    if has_image_branch:
        widths["image_width"] = _shape(checkpoint, "img_emb.proj.1.weight", rank=2)[1]
    return replace(sizes, **widths)


def _shape(checkpoint: Checkpoint, key: str, *, rank: int) -> tuple[int, ...]:
    if key not in checkpoint:
        raise ModelFileError(checkpoint.path, f"is an incomplete Wan transformer: {key} is missing")
    shape = checkpoint.shape(key)
    if len(shape) != rank:
        raise ModelFileError(
            checkpoint.path, f"{key} has shape {list(shape)}, expected {rank} dimensions of a Wan transformer"
        )
    return shape


def _block_count(checkpoint: Checkpoint) -> int:
    numbers = _block_numbers(checkpoint)
    missing = sorted(set(range(max(numbers))) - numbers)
    if missing:
        raise ModelFileError(
            checkpoint.path, f"is an incomplete Wan transformer: block {missing[0]} is missing"
        )
    return len(numbers)


def _block_numbers(keys: Iterable[str]) -> set[int]:
    parts = (key.split(".") for key in keys if key.startswith("blocks."))
    return {int(part[1]) for part in parts if len(part) > 2 and part[1].isdigit()}
