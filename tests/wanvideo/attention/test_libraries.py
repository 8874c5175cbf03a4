"""One adapter per library: layout, scale, dtypes, inputs left alone."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from comfyui_wanvideo.wanvideo.attention.flash2 import flash_attention_2
from comfyui_wanvideo.wanvideo.attention.flash3 import flash_attention_3
from comfyui_wanvideo.wanvideo.attention.registry import BACKENDS
from comfyui_wanvideo.wanvideo.attention.sage import sage_attention, sage_attention_varlen
from comfyui_wanvideo.wanvideo.attention.sage3 import sage_attention_3

from .conftest import HALF, exact, inputs, relative_error, rows_before_heads


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
    assert dropout_p == 0.0
    assert softmax_scale is None
    assert not causal
    return rows_before_heads(q, k, v)


def early_flash_attn_3_func(q, k, v, softmax_scale=None, causal=False):
    attended = flash_attn_func(q, k, v, 0.0, softmax_scale, causal)
    return attended, torch.zeros(q.shape[0], q.shape[2], q.shape[1])


def flash_attn_3_func(q, k, v, softmax_scale=None, causal=False):
    return early_flash_attn_3_func(q, k, v, softmax_scale, causal)[0]


def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, **kwargs):
    assert tensor_layout == "NHD"
    assert not is_causal
    assert sm_scale is None
    assert not kwargs
    return rows_before_heads(q, k, v)


def sageattn_varlen(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, is_causal=False, **kwargs
):
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert not is_causal
    assert not kwargs
    assert cu_seqlens_q.diff().max() == max_seqlen_q
    assert cu_seqlens_k.diff().max() == max_seqlen_k
    edges = zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True)
    return torch.cat(
        [rows_before_heads(q[a:c][None], k[b:d][None], v[b:d][None])[0] for (a, b), (c, d) in pairwise(edges)]
    )


def sageattn3_blackwell(q, k, v, attn_mask=None, is_causal=False):
    assert attn_mask is None
    assert not is_causal
    assert q.dtype in HALF
    assert q.is_contiguous()
    k -= k.mean(dim=-2, keepdim=True)  # as the library does
    return F.scaled_dot_product_attention(q, k, v)


CASES = {
    "flash_attn_2": (flash_attention_2, "flash_attn", {"flash_attn_func": flash_attn_func}),
    "flash_attn_3": (flash_attention_3, "flash_attn_interface", {"flash_attn_func": flash_attn_3_func}),
    "early flash_attn_3": (
        flash_attention_3,
        "flash_attn_interface",
        {"flash_attn_func": early_flash_attn_3_func},
    ),
    "sageattn": (sage_attention, "sageattention", {"sageattn": sageattn}),
    "sageattn_varlen": (sage_attention_varlen, "sageattention", {"sageattn_varlen": sageattn_varlen}),
    "sageattn_3": (sage_attention_3, "sageattn3", {"sageattn3_blackwell": sageattn3_blackwell}),
}


@pytest.fixture(params=CASES)
def adapter(request, library):
    function, package, functions = CASES[request.param]
    library(package, **functions)
    return function


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (5, 13)])
def test_it_is_softmax_attention(adapter, dtype, queries, keys):
    q, k, v = inputs(queries, keys, dtype, batch=2)
    assert relative_error(adapter(q, k, v), exact(q, k, v)) <= 2e-2


def test_the_result_has_the_shape_and_dtype_of_the_stream(adapter):
    found = adapter(*inputs(5, 13, torch.bfloat16, heads=2))
    assert (found.shape, found.dtype) == ((1, 5, 256), torch.bfloat16)


def test_float32_is_computed_in_half_precision_and_cast_back(adapter):
    q, k, v = inputs(9, 9)
    found = adapter(q, k, v)
    assert found.dtype == torch.float32
    assert 0 < relative_error(found, exact(q, k, v)) <= 5e-3


def test_wider_queries_and_keys_follow_the_values(adapter):
    q, k, v = inputs(9, 9)
    found = adapter(q, k, v.bfloat16())
    assert found.dtype == torch.bfloat16
    assert relative_error(found, exact(q, k, v)) <= 2e-2


@pytest.mark.parametrize("heads", [1, 3])
def test_keys_shared_by_several_calls_are_not_written_to(adapter, heads):
    q, k, v = inputs(9, 9, torch.bfloat16, heads=heads)
    before = [x.clone() for x in (q, k, v)]
    adapter(q, k, v)
    assert all(torch.equal(x, y) for x, y in zip(before, (q, k, v), strict=True))


def test_keys_of_one_row_shared_by_a_batch_are_taken(adapter):
    q, k, v = inputs(4, 6, torch.bfloat16)
    q = q.expand(2, -1, -1, -1)
    found = adapter(q, k.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1))
    assert relative_error(found, exact(q, k, v)) <= 2e-2


def test_the_compiled_name_is_the_same_function():
    assert BACKENDS["sageattn_compiled"].function is BACKENDS["sageattn"].function


@pytest.mark.parametrize(
    "name",
    ["flash_attn_2", "flash_attn_3", "sageattn", "sageattn_varlen", "sageattn_3", "sparse_sage_attention"],
)
def test_a_library_for_gpus_is_refused_on_the_cpu(name):
    reason = BACKENDS[name].supports(torch.device("cpu"), torch.bfloat16, 128)
    assert reason is not None
    assert "NVIDIA" in reason
    assert "cpu" in reason


@pytest.mark.parametrize(
    ("name", "generation", "accepted"),
    [
        ("flash_attn_2", (7, 5), False),
        ("flash_attn_2", (8, 6), True),
        ("flash_attn_3", (9, 0), True),
        ("flash_attn_3", (12, 0), False),
        ("sageattn", (8, 9), True),
        ("sageattn", (6, 1), False),
        ("sageattn_3", (9, 0), False),
        ("sageattn_3", (12, 0), True),
    ],
)
def test_a_library_is_refused_on_a_gpu_it_was_not_built_for(monkeypatch, name, generation, accepted):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: generation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Test GPU")
    reason = BACKENDS[name].supports(torch.device("cuda", 0), torch.bfloat16, 128)
    assert (reason is None) is accepted


@pytest.mark.parametrize(("dtype", "width"), [(torch.float64, 128), (torch.bfloat16, 512)])
def test_other_dtypes_and_wide_heads_are_refused(monkeypatch, dtype, width):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    reasons = [
        BACKENDS[name].supports(torch.device("cuda", 0), dtype, width)
        for name in ("flash_attn_2", "flash_attn_3", "sageattn")
    ]
    assert all(reasons)
