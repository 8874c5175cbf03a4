"""ComfyUI's own functions in this pack's shapes."""

import torch
import torch.nn.functional as F


def test_comfy_attention_equals_softmax_attention(host):
    query, key, value = (torch.randn(2, length, 3, 16) for length in (5, 7, 7))
    scores = torch.einsum("blnk,bmnk->bnlm", query, key) / 4.0
    expected = torch.einsum("bnlm,bmnk->blnk", F.softmax(scores, dim=-1), value).flatten(2)
    torch.testing.assert_close(host.comfy_attention(query, key, value), expected, rtol=1e-5, atol=1e-5)


def test_only_core_objects_are_taken_for_core_objects(host):
    assert not host.is_core_vae(object())
    assert not host.is_core_clip(object())
