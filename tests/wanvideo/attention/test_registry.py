"""Attention backends by name."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.registry import BACKENDS, resolve
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.errors import InputError


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (5, 13)])
def test_sdpa_is_softmax_attention(dtype, tolerance, queries, keys):
    q, k, v = (torch.randn(2, n, 3, 128).to(dtype) for n in (queries, keys, keys))
    scores = torch.einsum("blnk,bmnk->bnlm", q.double(), k.double()) / 128**0.5
    expected = torch.einsum("bnlm,bmnk->blnk", scores.softmax(-1), v.double()).flatten(2)
    found = sdpa(q, k, v)
    assert (found.double() - expected).norm() / expected.norm() <= tolerance


def test_a_missing_package_is_named_with_what_to_do():
    missing = [b.name for b in BACKENDS.values() if b.package]
    assert missing
    with pytest.raises(InputError, match=r"attention_mode: flash_attn_3 needs .* not installed"):
        resolve("flash_attn_3")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="sdpa"):
        resolve("magic")


def test_the_host_may_lend_a_backend():
    assert resolve("comfy", host_backends={"comfy": sdpa}) is sdpa
