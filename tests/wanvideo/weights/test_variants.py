"""The table of released models."""

import pytest
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.weights.capabilities import CAPABILITIES
from comfyui_wanvideo.wanvideo.weights.variants import known_variants, variants_of

BY_NAME = {variant.name: variant for variant in known_variants()}


def sizes(dim, layers, cin, cout):
    return WanConfig(dim=dim, ffn_dim=8, heads=dim // 128, layers=layers, in_channels=cin, out_channels=cout)


def test_names_are_unique():
    assert len(BY_NAME) == len(known_variants())


def test_every_capability_of_the_table_is_one_that_detection_knows():
    used = set().union(*(variant.capabilities for variant in known_variants()))
    assert used <= {rule.name for rule in CAPABILITIES}


DEFAULTS = {variant.name: variant.defaults for variant in known_variants() if variant.defaults}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_fit_the_model(name):
    defaults, stride = DEFAULTS[name], 32 if BY_NAME[name].out_channels == 48 else 16
    assert defaults.frames % 4 == 1
    assert defaults.width % stride == defaults.height % stride == 0
    assert defaults.steps > 0
    assert defaults.cfg >= 1
    assert defaults.shift > 0
    assert defaults.expert_boundary is None or 0 < defaults.expert_boundary < 1


def test_only_two_expert_models_have_a_boundary():
    with_boundary = {name for name, defaults in DEFAULTS.items() if defaults.expert_boundary}
    assert with_boundary == {name for name in DEFAULTS if "A14B" in name}


@pytest.mark.parametrize(
    ("name", "steps", "shift", "cfg", "frames", "rate", "boundary"),
    [
        ("Wan 2.1 I2V 14B 480P", 40, 3, 5, 81, 16, None),
        ("Wan 2.1 FLF2V 14B 720P", 50, 16, 5.5, 81, 16, None),
        ("Wan 2.2 T2V A14B", 40, 12, 4, 81, 16, 0.875),
        ("Wan 2.2 I2V A14B", 40, 5, 3.5, 81, 16, 0.9),
        ("Wan 2.2 TI2V 5B", 50, 5, 5, 121, 24, None),
        ("Wan 2.2 Fun Control A14B", 50, 5, 6, 81, 16, 0.9),
        ("Wan 2.1 VACE 14B", 50, 16, 5, 81, 16, None),
        ("Phantom 14B", 50, 5, 7.5, 121, 24, None),
        ("SkyReels A2 14B", 50, 8, 5, 81, 15, None),
        ("UniLumos 1.3B", 25, 8, 6, 49, 12, None),
    ],
)
def test_defaults_are_those_of_the_official_configuration(name, steps, shift, cfg, frames, rate, boundary):
    found = DEFAULTS[name]
    assert (found.steps, found.shift, found.cfg) == (steps, shift, cfg)
    assert (found.frames, found.frames_per_second, found.expert_boundary) == (frames, rate, boundary)


def test_the_row_that_explains_most_capabilities_wins():
    found = variants_of(sizes(5120, 40, 16, 16), {"text", "t2v", "vace"})
    assert [variant.name for variant in found] == ["Wan 2.1 VACE 14B", "Wan 2.2 VACE-Fun A14B"]


def test_unknown_capabilities_do_not_hide_the_release():
    found = variants_of(sizes(3072, 30, 48, 48), {"text", "t2v", "clean first frame", "my family"})
    assert [variant.name for variant in found] == ["Wan 2.2 TI2V 5B"]


def test_other_sizes_have_no_row():
    assert variants_of(sizes(1536, 12, 16, 16), {"t2v"}) == ()
