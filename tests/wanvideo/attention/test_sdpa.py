"""PyTorch's attention."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa

from .conftest import exact, inputs, relative_error


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (5, 13)])
def test_it_is_softmax_attention(dtype, tolerance, queries, keys):
    q, k, v = inputs(queries, keys, dtype, batch=2)
    assert relative_error(sdpa(q, k, v), exact(q, k, v)) <= tolerance


def test_chunks_of_queries_share_the_keys():
    q, k, v = inputs(11, 11)
    chunks = torch.cat([sdpa(part, k, v) for part in q.split(4, dim=1)], dim=1)
    assert torch.allclose(chunks, sdpa(q, k, v), atol=1e-6)
