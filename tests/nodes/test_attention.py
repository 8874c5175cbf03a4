"""Nodes that choose how attention is computed."""

import logging
import sys
import types

import pytest
from comfyui_wanvideo.wanvideo.attention.radial import RadialSettings
from comfyui_wanvideo.wanvideo.attention.run import AttentionOverride
from comfyui_wanvideo.wanvideo.errors import InputError

RADIAL_INPUTS = {
    "dense_attention_mode": "sdpa",
    "dense_blocks": 2,
    "dense_vace_blocks": 1,
    "dense_timesteps": 3,
    "decay_factor": 0.3,
    "block_size": 64,
}
LIBRARIES = {
    "flash_attn_2": "flash_attn",
    "flash_attn_3": "flash_attn_interface",
    "sageattn": "sageattention",
    "sageattn_3": "sageattn3",
    "sageattn_compiled": "sageattention",
    "sageattn_varlen": "sageattention",
}


@pytest.fixture
def attention(node_module):
    return node_module("attention")


@pytest.fixture
def model(node_module):
    """A model of which only the settings are looked at."""

    def of(mode="sdpa"):
        return node_module("wan_model").WanVideoModel(None, None, "tiny", attention_mode=mode)

    return of


def override(attention, model, **inputs):
    values = {"attention_mode": "sdpa", "start_step": 0, "end_step": 10000, "verbose": False, **inputs}
    return attention.WanVideoSetAttentionModeOverride.run(model, **values).result[0]


def radial(attention, model, **inputs):
    return attention.WanVideoSetRadialAttention.run(model, **{**RADIAL_INPUTS, **inputs}).result[0]


@pytest.mark.parametrize(("blocks", "expected"), [(None, None), (3, {3}), ([0, 2, 5], {0, 2, 5})])
def test_an_override_takes_a_number_a_list_or_nothing(attention, model, blocks, expected):
    found = override(attention, model(), attention_mode="comfy", start_step=1, end_step=4, blocks=blocks)
    assert found.overrides == (
        AttentionOverride("comfy", 1, 4, None if expected is None else frozenset(expected)),
    )


def test_overrides_add_up_and_leave_the_given_model_alone(attention, model):
    first = override(attention, model(), end_step=2)
    second = override(attention, first, attention_mode="auto", start_step=2)
    assert [o.mode for o in second.overrides] == ["sdpa", "auto"]
    assert [o.mode for o in first.overrides] == ["sdpa"]


def test_an_override_without_steps_is_refused(attention, model):
    with pytest.raises(InputError, match="start_step: 5 is not below end_step 5"):
        override(attention, model(), start_step=5, end_step=5)


def test_verbose_names_the_last_step_and_the_blocks(attention, model, caplog):
    with caplog.at_level(logging.INFO):
        override(attention, model(), start_step=1, end_step=4, verbose=True, blocks=[2, 0])
    assert "attention sdpa in steps 1 to 3, blocks 0, 2" in caplog.text


@pytest.mark.parametrize("mode", LIBRARIES)
def test_a_missing_library_is_a_sentence_before_the_run(attention, mode):
    found = attention.WanVideoSetAttentionModeOverride.validate_inputs(attention_mode=mode)
    assert found == (
        f"attention_mode: {mode} needs the Python package {LIBRARIES[mode]}, which is not installed; "
        "install it into ComfyUI's environment or choose sdpa"
    )


def test_an_installed_library_passes(attention, monkeypatch):
    monkeypatch.setitem(sys.modules, "sageattention", types.ModuleType("sageattention"))
    assert attention.WanVideoSetAttentionModeOverride.validate_inputs(attention_mode="sageattn") is True


@pytest.mark.parametrize("mode", ["sdpa", "comfy", "auto", "radial_sage_attention", "sageattn_ultravico"])
def test_modes_without_a_library_pass(attention, mode):
    assert attention.attention_problem(mode) is None


def test_a_value_that_comes_from_another_node_is_not_judged_yet(attention):
    assert attention.WanVideoSetAttentionModeOverride.validate_inputs(attention_mode=None) is True


def test_the_modes_keep_their_order_and_new_ones_follow(attention):
    assert attention.ATTENTION_MODES == [
        "sdpa",
        "flash_attn_2",
        "flash_attn_3",
        "sageattn",
        "sageattn_3",
        "radial_sage_attention",
        "sageattn_compiled",
        "sageattn_ultravico",
        "comfy",
        "auto",
        "sageattn_varlen",
    ]


def test_radial_settings_reach_the_model(attention, model):
    found = radial(attention, model("radial_sage_attention"))
    assert found.radial == RadialSettings("sdpa", frozenset({0, 1}), frozenset({0}), 3, 0.3, 64)
    assert found.attention_mode == "radial_sage_attention"


def test_dense_blocks_may_be_a_list(attention, model):
    found = radial(attention, model("radial_sage_attention"), dense_blocks=[0, 7, 39], dense_vace_blocks=[])
    assert found.radial.dense_blocks == {0, 7, 39}
    assert found.radial.dense_vace_blocks == frozenset()


def test_a_missing_dense_library_is_a_sentence_that_names_the_input(attention):
    found = attention.WanVideoSetRadialAttention.validate_inputs(dense_attention_mode="sparse_sage_attention")
    assert found.startswith(
        "dense_attention_mode: sparse_sage_attention needs the Python package spas_sage_attn"
    )


@pytest.mark.parametrize("mode", ["sdpa", "radial_sage_attention"])
def test_radial_settings_that_nothing_uses_are_said(attention, model, caplog, mode):
    with caplog.at_level(logging.WARNING):
        radial(attention, model(mode))
    assert ("no effect" in caplog.text) is (mode == "sdpa")


def test_an_override_that_uses_the_settings_counts(attention, model, caplog):
    with caplog.at_level(logging.WARNING):
        radial(attention, override(attention, model(), attention_mode="radial_sage_attention"))
    assert "no effect" not in caplog.text


def test_alpha_reaches_the_run(attention, model):
    found = attention.WanVideoUltraVicoSettings.run(model("sageattn_ultravico"), 0.75).result[0]
    assert found.attention.ultravico_alpha == 0.75


def test_alpha_that_nothing_uses_is_said(attention, model, caplog):
    with caplog.at_level(logging.WARNING):
        attention.WanVideoUltraVicoSettings.run(model("sageattn"), 0.75)
    assert "choose sageattn_ultravico in the model loader" in caplog.text
