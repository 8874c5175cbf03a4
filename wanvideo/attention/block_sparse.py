"""Attention over a mask of token blocks, by whichever way this machine has.

In order: a sparse SageAttention kernel (``spas_sage_attn``, github.com/thu-ml/SpargeAttn, or
``sparse_sageattn``, github.com/jt-zhang/Sparse_SageAttention_API), PyTorch's ``flex_attention`` compiled for
the GPU, and PyTorch's attention per block of queries, which runs everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import AttentionBackend, is_installed, package_version
from .casting import in_half_precision, refuse_other_devices, refuse_other_dtypes
from .self_test import device_name, first_line, kernel_errors, random_inputs

BlockSparseFunction = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""``(query [B, L, N, K], key [B, M, N, K], value, mask [L / block, M / block], block) -> [B, L, N * K]``."""

SPARSE_PACKAGES = {"spas_sage_attn": "block_sparse_sage2_attn_cuda", "sparse_sageattn": "sparse_sageattn"}
SHORTEST_SPARSE = 128  # rows the sparse kernels need
TILE = 64  # common divisor of all block and tile sizes
TOLERANCES = {**dict.fromkeys(SPARSE_PACKAGES, 0.1), "flex_attention": 0.02}


@dataclass(frozen=True)
class BlockSparseAttention:
    """One way to compute attention over a mask of blocks.

    Args:
        name: for the log.
        function: computes it.
    """

    name: str
    function: BlockSparseFunction

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, block_size: int) -> Tensor:
        """``[B, L, N, K]``, ``[B, M, N, K]`` twice, bool ``[L / block, M / block]`` -> ``[B, L, N * K]``."""
        return self.function(query, key, value, mask, block_size)


def attend_block_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, block_size: int) -> Tensor:
    """PyTorch's attention, one block of queries after the other, over the keys that block sees."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    mask = mask.to(key.device)
    kept_first = mask.int().argsort(dim=-1, descending=True, stable=True)
    tokens = kept_first[..., None] * block_size + torch.arange(block_size, device=key.device)
    missing = -key.shape[2] % block_size  # tokens the last block lacks; kept blocks are in order, it is last
    output = torch.empty_like(query)
    for row, (count, has_last) in enumerate(zip(mask.sum(-1).tolist(), mask[:, -1].tolist(), strict=True)):
        rows = slice(row * block_size, (row + 1) * block_size)
        columns = tokens[row, :count].flatten()[: count * block_size - has_last * missing]
        output[:, :, rows] = F.scaled_dot_product_attention(
            query[:, :, rows], key[:, :, columns], value[:, :, columns]
        )
    return output.transpose(1, 2).flatten(2)


def attend_flex(flex: Callable[..., Any]) -> BlockSparseFunction:
    """Attention through ``flex_attention``; ``flex`` is that function, compiled or not.

    Not compiled it computes every score and then masks: for tests only.
    """
    from torch.nn.attention.flex_attention import BlockMask

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, block_size: int) -> Tensor:
        mask = mask.to(query.device)
        counts = mask.sum(-1, dtype=torch.int32)[None, None]
        order = mask.int().argsort(dim=-1, descending=True, stable=True).int()[None, None]
        blocks = BlockMask.from_kv_blocks(
            torch.zeros_like(counts),
            torch.zeros_like(order),
            counts,
            order,
            BLOCK_SIZE=block_size,
            mask_mod=lambda _b, _h, q, k: mask[q // block_size, k // block_size],
            seq_lengths=(query.shape[1], key.shape[1]),
        )
        attended = flex(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), block_mask=blocks)
        return attended.transpose(1, 2).flatten(2)

    return attend


def attend_sparse_sage(package: str) -> BlockSparseFunction:
    """Attention through a sparse SageAttention kernel; short sequences go to :func:`attend_block_rows`.

    float32 is computed in float16 and cast back.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, block_size: int) -> Tensor:
        if min(query.shape[1], key.shape[1]) < SHORTEST_SPARSE:
            return attend_block_rows(query, key, value, mask, block_size)
        tiles = retile(mask, block_size, *tile_of(package, query.device), query.shape[1], key.shape[1])
        tiles = tiles.to(query.device, torch.int8).expand(query.shape[0], query.shape[2], -1, -1).contiguous()
        kernel = getattr(import_module(package), SPARSE_PACKAGES[package])

        @in_half_precision
        def sparse(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            heads_first = (x.transpose(1, 2).contiguous() for x in (query, key, value))
            return kernel(*heads_first, mask_id=tiles, tensor_layout="HND").transpose(1, 2).flatten(2)

        return sparse(query, key, value)

    return attend


def tile_of(package: str, device: torch.device) -> tuple[int, int]:
    """Rows and columns of a kernel's tiles: wider than high on Hopper in ``spas_sage_attn``."""
    is_hopper = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9
    return (64, 128) if is_hopper and package == "spas_sage_attn" else (128, 64)


def retile(mask: Tensor, block_size: int, rows: int, columns: int, queries: int, keys: int) -> Tensor:
    """The mask in tiles of another size: a tile is kept when it touches a kept block.

    Args:
        mask: ``[ceil(queries / block_size), ceil(keys / block_size)]``.
        block_size: 64 or 128.
        rows: of a tile, 64 or 128.
        columns: of a tile, 64 or 128.
        queries: of the sequence.
        keys: of the sequence.

    Returns:
        bool ``[ceil(queries / rows), ceil(keys / columns)]``.
    """
    fine = mask.repeat_interleave(block_size // TILE, 0).repeat_interleave(block_size // TILE, 1)
    fine = fine[: -(-queries // TILE), : -(-keys // TILE)]
    high, wide = rows // TILE, columns // TILE
    padded = F.pad(fine, (0, -fine.shape[1] % wide, 0, -fine.shape[0] % high))
    return padded.unflatten(1, (-1, wide)).any(2).unflatten(0, (-1, high)).any(1)


def block_sparse_attention(device: torch.device, dtype: torch.dtype) -> tuple[BlockSparseAttention, str]:
    """The fastest way that works on a device.

    Returns:
        It, and what was passed over and why (``""`` when the sparse kernel is used).
    """
    return _chosen(str(device), device_name(device), dtype, tuple(map(_installed_version, SPARSE_PACKAGES)))


@lru_cache(maxsize=8)
def _chosen(
    device: str, _name: str, dtype: torch.dtype, versions: tuple[str, ...]
) -> tuple[BlockSparseAttention, str]:
    here = torch.device(device)
    passed_over = [] if any(versions) else [f"neither {' nor '.join(SPARSE_PACKAGES)} is installed"]
    for name, make in _candidates(here, versions):
        failure = _failure(name, make, here, dtype)
        if failure is None:
            return BlockSparseAttention(name, make()), "; ".join(passed_over)
        passed_over.append(failure)
    return BlockSparseAttention("PyTorch per block", attend_block_rows), "; ".join(passed_over)


def _candidates(
    device: torch.device, versions: tuple[str, ...]
) -> list[tuple[str, Callable[[], BlockSparseFunction]]]:
    if device.type != "cuda":
        return []
    found: list[tuple[str, Callable[[], BlockSparseFunction]]] = [
        (package, lambda package=package: attend_sparse_sage(package))
        for package, version in zip(SPARSE_PACKAGES, versions, strict=True)
        if version
    ]
    if is_installed("triton"):
        found.append(("flex_attention", lambda: attend_flex(compiled_flex())))
    return found


def _failure(
    name: str, make: Callable[[], BlockSparseFunction], device: torch.device, dtype: torch.dtype
) -> str | None:
    """Why a way does not work here; tried on a random mask at a size that is no multiple of a block."""
    block, rows = 128, 600
    inputs = random_inputs(rows, rows, device, dtype)
    mask = torch.rand(5, 5, generator=torch.Generator("cpu").manual_seed(0)) < 0.5
    mask |= torch.eye(5, dtype=torch.bool)
    try:
        found = make()(*inputs, mask, block).float()
    except kernel_errors() as failure:
        return f"{name} does not run ({first_line(failure)})"
    query, key, value = (tensor.float() for tensor in inputs)
    expected = attend_block_rows(query, key, value, mask, block)
    error = ((found - expected).norm() / expected.norm()).item()
    if error <= TOLERANCES[name]:
        return None
    return f"{name} gives wrong numbers (relative error {error:.3g}, limit {TOLERANCES[name]:g})"


@lru_cache(maxsize=1)
def compiled_flex() -> Callable[..., Any]:
    """``flex_attention`` compiled, so that it computes only the blocks of the mask."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def _installed_version(package: str) -> str:
    return package_version(package) if is_installed(package) else ""


def sparse_sage_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The sparse kernel with nothing left out."""
    block_size = 128
    blocks = (-(-query.shape[1] // block_size), -(-key.shape[1] // block_size))
    mask = torch.ones(blocks, dtype=torch.bool, device=query.device)
    return attend_sparse_sage("spas_sage_attn")(query, key, value, mask, block_size)


def supports(device: torch.device, dtype: torch.dtype, _head_width: int) -> str | None:
    """NVIDIA GPUs from Ampere on."""
    return refuse_other_devices(
        device, lowest=8, highest=99, names="an NVIDIA GPU from the RTX 30 series on"
    ) or refuse_other_dtypes(dtype)


SPARSE_SAGE_ATTENTION = AttentionBackend(
    "sparse_sage_attention", sparse_sage_attention, "spas_sage_attn", supports, TOLERANCES["spas_sage_attn"]
)
