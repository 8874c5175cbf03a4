"""The UMT5 encoder network.

Prompts of a batch are laid end to end: the linear layers see one matrix of all tokens, so each weight is
read (and, when stored as fp8, cast) once, and nothing is computed for padding. Attention runs per prompt.
Relative positions make the result of a prompt independent of what else is in the batch.

Source: Raffel et al. 2020 (T5) and Chung et al. 2023 (UMT5); names as in Wan2.1 `wan/modules/t5.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..weights.formats import DENSE
from ..weights.formats.gguf import GgufFormat
from ..weights.formats.scaled import ScaledFormat
from ..weights.linear import WanLinear
from .umt5_keys import UMT5Config

MAX_DISTANCE = 128  # tokens further apart than this share a bucket
NORM_EPSILON = 1e-6


class TokenEmbedding(WanLinear):
    """The vectors of all tokens: a linear layer, the input of which is the number of a row.

    Being one, it is stored in any format; of a table that is packed or scaled only the rows in use are
    decoded.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__(width, vocabulary, bias=False)

    def rows(self, ids: Tensor) -> Tensor:
        """Token ids ``[N]`` to float32 ``[N, width]``, on the device of the table."""
        stored = self.stored()
        if not (self.format is DENSE or isinstance(self.format, (GgufFormat, ScaledFormat))):
            return self.materialize(torch.float32)[ids]
        picked = {
            name: tensor[ids] if tensor.shape[:1] == (self.out_features,) else tensor
            for name, tensor in stored.items()
        }
        return self.format.materialize(picked, torch.float32)


class T5Norm(nn.Module):
    """Root-mean-square norm without bias, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width), requires_grad=False)

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """``[..., width] -> [..., width]`` in `dtype`."""
        x = x.float()
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(NORM_EPSILON))
        return (x * scale).mul_(self.weight.float()).to(dtype)


class RelativePositions(nn.Module):
    """The attention bias of one block: a learned value per head and distance bucket."""

    def __init__(self, buckets: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(buckets, heads, _weight=torch.empty(buckets, heads))
        self.embedding.requires_grad_(False)

    def forward(self, buckets: Tensor, dtype: torch.dtype) -> Tensor:
        """Bias ``[1, heads, L, L]`` for the buckets ``[2L - 1]`` of distances 1 - L to L - 1."""
        length = (buckets.shape[0] + 1) // 2
        by_distance = self.embedding.weight.to(dtype)[buckets].T  # [heads, 2L - 1]
        # Query i sees keys at distances -i to L - 1 - i: a window of L that moves left with i.
        return by_distance.unfold(1, length, 1).flip(1).unsqueeze(0)


class SelfAttention(nn.Module):
    """Attention over one prompt, without the usual 1/sqrt(head width): T5 folds it into its weights."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.q = WanLinear(config.width, config.attention_width, bias=False)
        self.k = WanLinear(config.width, config.attention_width, bias=False)
        self.v = WanLinear(config.width, config.attention_width, bias=False)
        self.o = WanLinear(config.attention_width, config.width, bias=False)

    def forward(self, x: Tensor, biases: Sequence[Tensor]) -> Tensor:
        """``[N, width] -> [N, width]`` for prompts laid end to end, one bias each."""
        lengths = [bias.shape[-1] for bias in biases]
        per_prompt = [self._split_heads(layer(x)).split(lengths) for layer in (self.q, self.k, self.v)]
        mixed = [
            F.scaled_dot_product_attention(
                *(part.transpose(0, 1)[None] for part in qkv), attn_mask=bias, scale=1.0
            )
            for *qkv, bias in zip(*per_prompt, biases, strict=True)
        ]
        joined = torch.cat([part[0].transpose(0, 1).flatten(1) for part in mixed])
        return within_range(self.o(joined))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


class FeedForward(nn.Module):
    """Gated feed-forward: fc2(fc1(x) * gelu(gate(x)))."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            WanLinear(config.width, config.feed_forward_width, bias=False), nn.GELU(approximate="tanh")
        )
        self.fc1 = WanLinear(config.width, config.feed_forward_width, bias=False)
        self.fc2 = WanLinear(config.feed_forward_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, width] -> [N, width]``."""
        return within_range(self.fc2(within_range(self.fc1(x) * self.gate(x))))


class Block(nn.Module):
    """One layer. The residual stream is always float32: in fp16 it would overflow, in bf16 round."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.norm1 = T5Norm(config.width)
        self.attn = SelfAttention(config)
        self.norm2 = T5Norm(config.width)
        self.ffn = FeedForward(config)
        self.pos_embedding = RelativePositions(config.buckets, config.heads)

    def forward(self, x: Tensor, buckets: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """Float32 stream ``[N, width]`` to the same; the sub-layers compute in `dtype`."""
        biases = [self.pos_embedding(per_prompt, dtype) for per_prompt in buckets]
        x = x + self.attn(self.norm1(x, dtype), biases)
        return x + self.ffn(self.norm2(x, dtype))


class UMT5Encoder(nn.Module):
    """The network; parameters carry the official names.

    Args:
        config: sizes.
    """

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = TokenEmbedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = T5Norm(config.width)

    def forward(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        dtype: torch.dtype,
        device: torch.device,
        check: Callable[[], None],
    ) -> list[Tensor]:
        """Encode token ids.

        A block whose weights lie on another device is copied there for its turn, so a card needs room for
        one block only; the embedding table stays where it is.

        Args:
            prompts: token ids of each prompt, end token included; not padded, not empty.
            dtype: precision of the sub-layers.
            device: where to compute.
            check: called before every block; raises to stop.

        Returns:
            One float32 tensor ``[L, width]`` per prompt, on `device`.
        """
        lengths = [len(ids) for ids in prompts]
        buckets = [distance_buckets(length, self.config.buckets).to(device) for length in lengths]
        x = self._embedded([index for ids in prompts for index in ids]).to(device)
        for block in self.blocks:
            check()
            x = _run_on(device, block, x, buckets, dtype)
        x = _run_on(device, self.norm, x, torch.float32)
        return list(x.split(lengths))

    def _embedded(self, ids: list[int]) -> Tensor:
        return self.token_embedding.rows(torch.tensor(ids, device=self.token_embedding.weight.device))


def distance_buckets(length: int, buckets: int) -> Tensor:
    """The bucket of every distance (key minus query) 1 - L to L - 1, int64 ``[2L - 1]`` on the CPU.

    Half of the buckets are for keys after the query. Of each half, half hold one distance each, the rest
    grow logarithmically up to 128. Float32 as in the reference: at exact powers the rounding decides.
    """
    distance = torch.arange(1 - length, length)
    per_side = buckets // 2
    exact = per_side // 2
    apart = distance.abs()
    growth = torch.log(apart.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
    far = exact + (growth * (per_side - exact)).long()
    near_or_far = torch.where(apart < exact, apart, far.clamp(max=per_side - 1))
    return near_or_far + per_side * (distance > 0)


def within_range(x: Tensor) -> Tensor:
    """`x` with the overflows of float16 brought back to its largest value; other dtypes as they are."""
    if x.dtype != torch.float16:
        return x
    limit = torch.finfo(torch.float16).max
    return x.clamp(-limit, limit)


def _run_on(device: torch.device, module: nn.Module, *inputs: object) -> Tensor:
    """Call a module whose weights may lie elsewhere: they are copied for this call and then dropped."""
    weights = dict(module.named_parameters())
    if all(weight.device == device for weight in weights.values()):
        return module(*inputs)
    copies = {name: weight.to(device, non_blocking=True) for name, weight in weights.items()}
    return functional_call(module, copies, inputs)
