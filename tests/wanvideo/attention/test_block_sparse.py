"""Attention over blocks: every way gives the same numbers."""

import pytest
import torch
import torch.nn.functional as F
from comfyui_wanvideo.wanvideo.attention.block_sparse import (
    attend_block_rows,
    attend_flex,
    attend_sparse_sage,
    block_sparse_attention,
    retile,
    sparse_sage_attention,
)

from .conftest import HALF, exact, inputs, relative_error

QUERIES, KEYS = 200, 330


@pytest.fixture
def mask():
    mask = torch.rand(4, 6) < 0.5
    mask[:, 0] = True
    return mask


def expected_over(mask, query, key, value, block_size=64):
    seen = mask.repeat_interleave(block_size, 0)[: query.shape[1]]
    seen = seen.repeat_interleave(block_size, 1)[:, : key.shape[1]]
    scores = torch.einsum("blnk,bmnk->bnlm", query.double(), key.double()) / 128**0.5
    weights = scores.masked_fill(~seen, -float("inf")).softmax(-1)
    return torch.einsum("bnlm,bmnk->blnk", weights, value.double()).flatten(2)


def kernel(rows, columns):
    """A sparse sage kernel with tiles of that size."""

    def attend(q, k, v, mask_id=None, tensor_layout="HND"):
        assert mask_id is not None
        assert tensor_layout == "HND"
        assert all(x.dtype in HALF and x.is_contiguous() for x in (q, k, v))
        assert mask_id.dtype == torch.int8
        tiles = (-(-q.shape[2] // rows), -(-k.shape[2] // columns))
        assert mask_id.shape == (q.shape[0], q.shape[1], *tiles)
        seen = mask_id.bool().repeat_interleave(rows, 2)[:, :, : q.shape[2]]
        seen = seen.repeat_interleave(columns, 3)[..., : k.shape[2]]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    return attend


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_rows_of_blocks_see_their_keys(mask, dtype, tolerance):
    q, k, v = inputs(QUERIES, KEYS, dtype, batch=2)
    found = attend_block_rows(q, k, v, mask, 64)
    assert found.dtype == dtype
    assert relative_error(found, expected_over(mask, q, k, v)) <= tolerance


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gets_the_same_mask(mask):
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = inputs(QUERIES, KEYS)
    found = attend_flex(flex_attention)(q, k, v, mask, 64)
    assert relative_error(found, expected_over(mask, q, k, v)) <= 1e-5


def test_flex_attention_is_told_which_blocks_to_compute(mask):
    told = []

    def flex(query, _key, _value, block_mask):
        told.append(block_mask)
        return query

    q, k, v = inputs(QUERIES, KEYS)
    attend_flex(flex)(q, k, v, mask, 64)
    (blocks,) = told
    counts, order = blocks.full_kv_num_blocks[0, 0], blocks.full_kv_indices[0, 0]
    computed = [sorted(row[:count].tolist()) for row, count in zip(order, counts.tolist(), strict=True)]
    assert computed == [row.nonzero().flatten().tolist() for row in mask]
    assert blocks.kv_num_blocks.sum() == 0


@pytest.mark.parametrize(
    ("package", "function"),
    [("spas_sage_attn", "block_sparse_sage2_attn_cuda"), ("sparse_sageattn", "sparse_sageattn")],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_sparse_kernel_gets_the_mask_in_its_tiles(library, package, function, dtype):
    library(package, **{function: kernel(128, 64)})
    q, k, v = inputs(QUERIES, KEYS, dtype, batch=2)
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
    found = attend_sparse_sage(package)(q, k, v, mask, 128)
    assert found.dtype == dtype
    assert relative_error(found, expected_over(mask, q, k, v, 128)) <= 2e-2


def test_a_sequence_too_short_for_a_sparse_kernel_is_computed_without(library):
    library("spas_sage_attn", block_sparse_sage2_attn_cuda=None)
    q, k, v = inputs(100, 100)
    mask = torch.ones(1, 1, dtype=torch.bool)
    found = attend_sparse_sage("spas_sage_attn")(q, k, v, mask, 128)
    assert relative_error(found, exact(q, k, v)) <= 1e-5


def test_the_sparse_kernel_with_nothing_left_out_is_dense(library):
    library("spas_sage_attn", block_sparse_sage2_attn_cuda=kernel(128, 64))
    q, k, v = inputs(QUERIES, KEYS, torch.bfloat16)
    assert relative_error(sparse_sage_attention(q, k, v), exact(q, k, v)) <= 2e-2


@pytest.mark.parametrize("block_size", [64, 128])
@pytest.mark.parametrize(("rows", "columns"), [(128, 64), (64, 128)])
@pytest.mark.parametrize(("queries", "keys"), [(512, 512), (500, 700), (130, 65)])
def test_a_tile_is_kept_when_it_touches_a_kept_block(block_size, rows, columns, queries, keys):
    mask = torch.rand(-(-queries // block_size), -(-keys // block_size)) < 0.3
    seen = mask.repeat_interleave(block_size, 0)[:queries].repeat_interleave(block_size, 1)[:, :keys]
    expected = torch.tensor(
        [
            [bool(seen[r : r + rows, c : c + columns].any()) for c in range(0, keys, columns)]
            for r in range(0, queries, rows)
        ]
    )
    assert torch.equal(retile(mask, block_size, rows, columns, queries, keys), expected)


def test_without_a_gpu_pytorch_computes_it_and_the_reason_is_given():
    chosen, passed_over = block_sparse_attention(torch.device("cpu"), torch.bfloat16)
    assert chosen.name == "PyTorch per block"
    assert passed_over == "neither spas_sage_attn nor sparse_sageattn is installed"
