"""What computes attention in each step and block of a run."""

import logging

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.backend import LayoutAttention
from comfyui_wanvideo.wanvideo.attention.radial import RadialAttention, RadialSettings
from comfyui_wanvideo.wanvideo.attention.run import AttentionOverride, AttentionSettings, check, prepare
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.attention.ultravico import UltraVicoAttention
from comfyui_wanvideo.wanvideo.errors import InputError

from .conftest import rows_before_heads

CPU = torch.device("cpu")


def run_of(settings, **options):
    return prepare(settings, CPU, torch.bfloat16, **options)


def comfy(query, key, value):
    return sdpa(query, key, value)


def test_one_mode_everywhere():
    run = run_of(AttentionSettings("sdpa"))
    assert run.attention is sdpa
    assert run.attention_for(3, 7) is sdpa
    assert str(run) == "sdpa"


def test_an_override_holds_for_its_steps_and_blocks_of_self_attention():
    override = AttentionOverride("comfy", 2, 4, frozenset({1, 3}))
    run = run_of(AttentionSettings("sdpa", (override,)), host_backends={"comfy": comfy})
    found = {(s, b) for s in range(6) for b in range(5) if run.attention_for(s, b) is comfy}
    assert found == {(2, 1), (2, 3), (3, 1), (3, 3)}
    assert run.attention is sdpa
    assert str(run) == "sdpa, comfy"


def test_the_last_override_wins():
    overrides = (AttentionOverride("comfy", 0, 9, None), AttentionOverride("sdpa", 0, 1, None))
    run = run_of(AttentionSettings("sdpa", overrides), host_backends={"comfy": comfy})
    assert (run.attention_for(0, 0), run.attention_for(1, 0)) == (sdpa, comfy)


def test_radial_is_dense_in_its_dense_steps_and_blocks_and_for_the_text():
    radial = RadialSettings("comfy", frozenset({0}), dense_steps=1, decay_factor=0.4, block_size=64)
    run = run_of(AttentionSettings("radial_sage_attention", radial=radial), host_backends={"comfy": comfy})
    assert run.attention is comfy
    assert run.attention_for(0, 3) is comfy
    assert run.attention_for(1, 0) is comfy
    sparse = run.attention_for(1, 1)
    assert isinstance(sparse, RadialAttention)
    assert (sparse.decay_factor, sparse.block_size) == (0.4, 64)


def test_blocks_of_a_side_network_have_dense_blocks_of_their_own():
    radial = RadialSettings("comfy", frozenset({0}), frozenset({2}), dense_steps=1)
    run = run_of(AttentionSettings("radial_sage_attention", radial=radial), host_backends={"comfy": comfy})
    dense = {(s, b) for s in range(2) for b in range(4) if run.side_attention_for(s, b) is comfy}
    assert dense == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 2)}


def test_overrides_reach_a_side_network_unless_they_name_blocks():
    overrides = (AttentionOverride("comfy", 0, 1, None), AttentionOverride("sdpa", 0, 1, frozenset({0})))
    run = run_of(AttentionSettings("sdpa", overrides), host_backends={"comfy": comfy})
    assert run.attention_for(0, 0) is sdpa
    assert run.side_attention_for(0, 0) is comfy
    assert run.side_attention_for(1, 0) is sdpa


def test_radial_says_that_the_sparse_kernel_is_missing(caplog):
    with caplog.at_level(logging.WARNING):
        run = run_of(AttentionSettings("radial_sage_attention"))
    (record,) = caplog.records
    assert "the sparse sage kernel is not available" in record.getMessage()
    assert "spas_sage_attn" in record.getMessage()
    assert "PyTorch" in str(run)


def test_ultravico_says_what_computes_it_and_takes_alpha(caplog):
    with caplog.at_level(logging.WARNING):
        run = run_of(AttentionSettings("sageattn_ultravico", ultravico_alpha=0.7))
    (record,) = caplog.records
    assert "sageattention is not installed" in record.getMessage()
    assert "not available; computed with PyTorch" in record.getMessage()
    found = run.attention_for(0, 0)
    assert isinstance(found, UltraVicoAttention)
    assert found.alpha == 0.7


@pytest.mark.parametrize("mode", ["radial_sage_attention", "sageattn_ultravico"])
def test_cross_attention_never_depends_on_the_layout(mode):
    assert not isinstance(run_of(AttentionSettings(mode)).attention, LayoutAttention)


def test_auto_names_what_it_chose(library, on_any_device):
    on_any_device("sageattn")
    library("sageattention", sageattn=lambda q, k, v, tensor_layout, is_causal: rows_before_heads(q, k, v))
    assert str(run_of(AttentionSettings("auto"))) == "auto (sageattn)"


def test_a_missing_library_of_an_override_is_named_before_anything_runs():
    settings = AttentionSettings("sdpa", (AttentionOverride("flash_attn_3", 5, 9, None),))
    with pytest.raises(InputError, match=r"attention_mode: flash_attn_3 needs .* not installed"):
        check(settings, {})


def test_a_missing_library_of_the_dense_part_names_its_input():
    settings = AttentionSettings("radial_sage_attention", radial=RadialSettings("flash_attn_2"))
    with pytest.raises(InputError, match=r"dense_attention_mode: flash_attn_2 needs .* not installed"):
        run_of(settings)
