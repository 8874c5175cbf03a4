"""CLIP's image encoder: pictures to rows for the image branch of Wan 2.1 image to video.

Wan reads the rows after the last but one block, all of them, without the final norm. A pre-norm vision
transformer with a norm after the position embedding and exact GELU.

Source: Radford et al. 2021 (CLIP), Ilharco et al. 2021 (OpenCLIP ViT-H/14); names as in Wan2.1
`wan/modules/clip.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.assemble import assign
from ..weights.checkpoint import Checkpoint
from ..weights.dtype_policy import storage_dtypes
from ..weights.formats.expect import expect_formats
from ..weights.linear import WanLinear
from .clip_vision_keys import ClipVisionConfig, own_clip_vision, read_config
from .clip_vision_pixels import pixels_for_clip

NORM_EPSILON = 1e-5
IMAGES_AT_ONCE = 8  # 8 x 257 tokens keep a device busy; their activations are about 150 MB


def _nothing() -> None:
    """No check."""


class SelfAttention(nn.Module):
    """Attention among the rows of one picture."""

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q = WanLinear(config.width, config.width)
        self.k = WanLinear(config.width, config.width)
        self.v = WanLinear(config.width, config.width)
        self.proj = WanLinear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, width] -> [B, L, width]``."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One layer. The residual stream is float32; the sub-layers compute in the chosen dtype."""

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=NORM_EPSILON)
        self.attn = SelfAttention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=NORM_EPSILON)
        self.mlp = nn.Sequential(
            WanLinear(config.width, config.feed_forward_width),
            nn.GELU(),
            WanLinear(config.feed_forward_width, config.width),
        )

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Float32 stream ``[B, L, width]`` to the same."""
        x = x + self.attn(self.norm1(x).to(dtype))
        return x + self.mlp(self.norm2(x).to(dtype))


class ClipVisionTransformer(nn.Module):
    """The network; see :func:`clip_vision_keys.own_clip_vision` for the names of its parameters.

    Args:
        config: sizes.
    """

    parameter_dtype = "fp32"  # embeddings and norms; the linear layers follow the chosen precision

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.cls_embedding = nn.Parameter(torch.empty(config.width), requires_grad=False)
        self.pos_embedding = nn.Parameter(torch.empty(config.tokens, config.width), requires_grad=False)
        self.pre_norm = nn.LayerNorm(config.width, eps=NORM_EPSILON)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.post_norm = nn.LayerNorm(config.width, eps=NORM_EPSILON)
        self.head = (
            WanLinear(config.width, config.projection_width, bias=False) if config.projection_width else None
        )

    def forward(self, pixels: Tensor, *, dtype: torch.dtype, check: Callable[[], None]) -> Tensor:
        """Rows after the last but one block.

        Args:
            pixels: ``[B, 3, side, side]``, float32, normalised.
            dtype: precision of the sub-layers.
            check: called before every block; raises to stop.

        Returns:
            Float32 ``[B, tokens, width]``, the class row first.
        """
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        classes = self.cls_embedding.expand(len(pixels), 1, -1)
        x = self.pre_norm(torch.cat([classes, patches], dim=1) + self.pos_embedding)
        for block in self.blocks[:-1]:
            check()
            x = block(x, dtype)
        return x

    def finish(self, rows: Tensor, *, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """From the rows of `forward` to the rows after the last block and the embedding shared with text.

        Returns:
            ``[B, tokens, width]``, and ``[B, projection_width]`` or None when the file has no projection.
        """
        last = self.blocks[-1](rows, dtype)
        return last, None if self.head is None else self.head(self.post_norm(last[:, 0]))


@dataclass(frozen=True)
class ClipFeatures:
    """All that CLIP says of pictures; float32 on the CPU.

    Args:
        penultimate: rows after the last but one block ``[B, tokens, width]``: what Wan reads.
        last: rows after the last block, without the final norm ``[B, tokens, width]``.
        projected: the embedding shared with text ``[B, projection_width]``; None without a projection.
    """

    penultimate: Tensor
    last: Tensor
    projected: Tensor | None


@dataclass(frozen=True)
class ClipVisionEncoder:
    """A CLIP image encoder, ready for pictures of any size.

    Args:
        module: the network; it computes on the device it is on.
        dtype: compute precision of the linear layers.
    """

    module: ClipVisionTransformer
    dtype: torch.dtype

    @property
    def width(self) -> int:
        """Width of the rows; a transformer's image projection takes exactly this."""
        return self.module.config.width

    @property
    def working_bytes(self) -> int:
        """Upper estimate of the memory a pass needs beside the weights."""
        config = self.module.config
        per_token = 2 * config.feed_forward_width + 12 * config.width
        return 4 * IMAGES_AT_ONCE * config.tokens * per_token

    @torch.no_grad()
    def encode(
        self,
        images: Tensor,
        *,
        device: torch.device | str,
        crop: bool = True,
        check: Callable[[], None] = _nothing,
    ) -> Tensor:
        """Rows of pictures, as Wan reads them.

        Args:
            images: ``[B, H, W, C]`` in [0, 1].
            device: where the module is.
            crop: cut the middle square; otherwise the picture is squeezed to a square.
            check: called before every block; raises to stop.

        Returns:
            Float32 ``[B, tokens, width]`` on the CPU: after the last but one block, without a norm.

        Raises:
            InputError: not a batch of colour pictures.
        """
        parts = self._pixels(images, device, crop)
        return torch.cat([self.module(pixels, dtype=self.dtype, check=check).cpu() for pixels in parts])

    @torch.no_grad()
    def features(
        self,
        images: Tensor,
        *,
        device: torch.device | str,
        crop: bool = True,
        check: Callable[[], None] = _nothing,
    ) -> ClipFeatures:
        """As :meth:`encode`, with the last block and the projection as well."""
        penultimate, last, projected = [], [], []
        for pixels in self._pixels(images, device, crop):
            rows = self.module(pixels, dtype=self.dtype, check=check)
            rest = self.module.finish(rows, dtype=self.dtype)
            penultimate.append(rows.cpu())
            last.append(rest[0].cpu())
            if rest[1] is not None:
                projected.append(rest[1].cpu())
        return ClipFeatures(
            torch.cat(penultimate), torch.cat(last), torch.cat(projected) if projected else None
        )

    def _pixels(self, images: Tensor, device: torch.device | str, crop: bool) -> Iterator[Tensor]:
        for part in images.split(IMAGES_AT_ONCE):
            yield pixels_for_clip(part.cpu(), self.module.config.image_size, crop=crop).to(device)


def load_clip_vision(checkpoint: Checkpoint, *, dtype: torch.dtype) -> ClipVisionEncoder:
    """Load a CLIP image encoder in any known key layout; text towers in the file are not read.

    Args:
        checkpoint: the opened file.
        dtype: compute precision of the linear layers: float32, bfloat16 or float16. Embeddings, norms and
            the residual stream are float32.

    Raises:
        ModelFileError: another kind of file, a tower that is not of ViT-H's kind, damaged weights.
    """
    own = own_clip_vision(checkpoint)
    with torch.device("meta"):
        module = ClipVisionTransformer(read_config(own))
    used_up = expect_formats(module, own)
    assign(module, own, dtype_of=storage_dtypes(module, own, compute_dtype=dtype), ignore=used_up)
    return ClipVisionEncoder(module.eval(), dtype)
