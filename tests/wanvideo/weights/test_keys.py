"""Prefixes and key layouts of transformer files."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights.keys import (
    canonical,
    find_prefix,
    to_diffusers,
    to_official,
    with_current_scale_name,
)
from hypothesis import given
from hypothesis import strategies as st

PREFIXES = ["", "model.diffusion_model.", "model.", "diffusion_model.", "module.", "a.b.c.", "video_model."]
BLOCK_NAMES = [
    *(f"{attention}.{name}" for attention in ("self_attn", "cross_attn") for name in ("q", "k", "v", "o")),
    *(f"{attention}.{name}" for attention in ("self_attn", "cross_attn") for name in ("norm_q", "norm_k")),
    "cross_attn.k_img",
    "cross_attn.v_img",
    "cross_attn.norm_k_img",
    "norm2",
    "norm3",
    "ffn.0",
    "ffn.2",
]
TOP_NAMES = [
    "patch_embedding",
    "time_embedding.0",
    "time_embedding.2",
    "time_projection.1",
    "text_embedding.0",
    "text_embedding.2",
    "img_emb.proj.0",
    "img_emb.proj.1",
    "img_emb.proj.3",
    "img_emb.proj.4",
    "head.head",
    "vace_patch_embedding",
]
LEAVES = ["weight", "bias", "scale_weight", "lora_A.weight", "diff_b"]


def official_keys():
    leaf = st.sampled_from(LEAVES)
    place = st.builds("{}.{}".format, st.sampled_from(["blocks", "vace_blocks"]), st.integers(0, 41))
    return st.one_of(
        st.builds("{}.{}.{}".format, place, st.sampled_from(BLOCK_NAMES), leaf),
        st.builds("{}.modulation".format, place),
        st.builds(
            "vace_blocks.{}.{}.{}".format,
            st.integers(0, 14),
            st.sampled_from(["before_proj", "after_proj"]),
            leaf,
        ),
        st.builds("{}.{}".format, st.sampled_from(TOP_NAMES), leaf),
        st.sampled_from(["head.modulation", "img_emb.emb_pos"]),
    )


def diffusers_model(**options):
    diffusers = pytest.importorskip("diffusers")
    sizes = {"num_attention_heads": 2, "attention_head_dim": 128, "ffn_dim": 512, "num_layers": 2}
    with torch.device("meta"):
        return diffusers.WanTransformer3DModel(**sizes, text_dim=4096, **options)


@given(key=official_keys())
def test_to_diffusers_and_back_is_the_same_key(key):
    assert to_official(to_diffusers(key)) == key


@given(keys=st.lists(official_keys(), unique=True))
def test_no_two_keys_get_the_same_diffusers_name(keys):
    assert len({to_diffusers(key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"in_channels": 16}, {}),
        ({"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 256}, {"cin": 36, "image": True}),
        (
            {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 256, "pos_embed_seq_len": 514},
            {"cin": 36, "image": True, "flf": True},
        ),
        ({"in_channels": 48, "out_channels": 48}, {"cin": 48, "cout": 48}),
    ],
)
def test_the_keys_of_diffusers_become_exactly_the_official_ones(shapes_of, make_header, options, sizes):
    state = {key: tuple(tensor.shape) for key, tensor in diffusers_model(**options).state_dict().items()}
    converted = canonical(make_header(state))
    assert {key: converted.shape(key) for key in converted} == shapes_of["wan"](**sizes)


def test_official_keys_become_exactly_those_of_diffusers(shapes_of):
    theirs = set(diffusers_model(in_channels=16).state_dict())
    assert {to_diffusers(key) for key in shapes_of["wan"]()} == theirs


def test_the_vace_keys_of_diffusers_become_the_official_ones(shapes_of, make_header):
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        model = diffusers.WanVACETransformer3DModel(
            num_attention_heads=2, attention_head_dim=128, ffn_dim=512, num_layers=2, vace_layers=[0, 1]
        )
    state = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    converted = canonical(make_header(state))
    expected = {**shapes_of["wan"](), **shapes_of["vace"]()}
    assert {key: converted.shape(key) for key in converted} == expected


def test_the_affine_norm_changes_its_number():
    assert to_official("blocks.7.norm2.weight") == "blocks.7.norm3.weight"


def test_the_unused_query_norm_of_the_image_branch_is_left_out():
    assert to_official("blocks.0.attn2.norm_added_q.weight") is None


@given(key=st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8}){0,3}", fullmatch=True))
def test_unknown_keys_stay_as_they_are(key):
    assert to_official(f"unknown_{key}") == f"unknown_{key}"


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("layout", [str, to_diffusers])
def test_any_prefix_is_found_and_taken_off(shapes_of, make_header, prefix, layout):
    shapes = shapes_of["wan"]()
    checkpoint = make_header({prefix + layout(key): shape for key, shape in shapes.items()})
    assert find_prefix(checkpoint.keys()) == prefix
    assert set(canonical(checkpoint)) == set(shapes)


@given(order=st.randoms(use_true_random=False))
def test_the_order_of_the_keys_does_not_matter(shapes_of, make_header, order):
    keys = ["scaled_fp8", *(f"model.{key}" for key in shapes_of["wan"]())]
    order.shuffle(keys)
    assert set(canonical(make_header({key: (1,) for key in keys}))) == {"scaled_fp8", *shapes_of["wan"]()}


def test_a_prefix_in_the_middle_of_a_word_is_no_prefix():
    assert find_prefix(["my_blocks.0.self_attn.q.weight"]) is None


def test_canonical_twice_is_canonical_once(shapes_of, make_header):
    once = canonical(make_header({f"model.{to_diffusers(key)}": (1,) for key in shapes_of["wan"]()}))
    assert set(canonical(once)) == set(once)


def test_the_other_parts_of_an_all_in_one_checkpoint_are_left_out(shapes_of, make_header):
    shapes = {f"model.diffusion_model.{key}": shape for key, shape in shapes_of["wan"]().items()}
    shapes.update({"first_stage_model.conv1.weight": (2,), "text_encoders.umt5.shared.weight": (2,)})
    assert set(canonical(make_header(shapes))) == set(shapes_of["wan"]())


def test_the_video_half_of_a_two_network_file_is_taken(shapes_of, make_header):
    shapes = shapes_of["wan"]()
    both = {f"{half}_model.{key}": shape for half in ("audio", "video") for key, shape in shapes.items()}
    assert find_prefix(make_header(both).keys()) == "video_model."
    assert set(canonical(make_header(both))) == set(shapes)


def test_a_vace_module_with_prefix_gets_its_own_names(shapes_of, make_header):
    shapes = {f"diffusion_model.{key}": shape for key, shape in shapes_of["vace"]().items()}
    assert set(canonical(make_header(shapes))) == set(shapes_of["vace"]())


def test_another_file_stays_as_it_is(make_header):
    checkpoint = make_header({"model.encoder.conv1.weight": (2,)})
    assert canonical(checkpoint) is checkpoint


@pytest.mark.parametrize(
    ("old", "new"), [("scale_weight", "weight_scale"), ("scale_input", "input_scale"), ("weight", "weight")]
)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("rename", [str, to_diffusers], ids=["official", "diffusers"])
def test_scales_of_older_files_get_their_current_names(make_header, old, new, prefix, rename):
    keys = [f"blocks.0.self_attn.q.{leaf}" for leaf in {"weight", old}]
    found = canonical(make_header({prefix + rename(key): (2, 2) for key in keys}))
    assert set(found) == {"blocks.0.self_attn.q.weight", f"blocks.0.self_attn.q.{new}"}


def test_a_name_that_only_ends_like_a_scale_stays():
    assert with_current_scale_name("scale_weight") == "scale_weight"
