"""What a file is, from its header. Sizes and channels are those of the released files."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.weights.capabilities import CAPABILITIES, with_key
from comfyui_wanvideo.wanvideo.weights.detect import describe_file, detect, spec_of
from comfyui_wanvideo.wanvideo.weights.joined import joined
from comfyui_wanvideo.wanvideo.weights.keys import to_diffusers
from comfyui_wanvideo.wanvideo.weights.variants import known_variants

from .key_lists import OTHER_FILES, TRANSFORMERS

FILES = [pytest.param(*case, id=name) for name, case in TRANSFORMERS.items()]


@pytest.fixture
def release(make_header):
    return lambda name: make_header(TRANSFORMERS[name][0]())


# Every release: the sizes and channels are the real ones.


@pytest.mark.parametrize(("keys", "capabilities", "_names"), FILES)
def test_a_file_has_exactly_the_capabilities_of_its_release(make_header, keys, capabilities, _names):
    assert detect(make_header(keys())).capabilities == capabilities


@pytest.mark.parametrize(("keys", "_capabilities", "names"), FILES)
def test_a_file_is_named_by_exactly_the_releases_of_its_shapes(make_header, keys, _capabilities, names):
    assert tuple(variant.name for variant in detect(make_header(keys())).variants) == names


def test_every_release_of_the_table_has_a_key_list():
    listed = [name for *_, names in TRANSFORMERS.values() for name in names]
    assert {variant.name for variant in known_variants()} == set(listed)


@pytest.mark.parametrize("rule", CAPABILITIES, ids=lambda rule: rule.name)
def test_every_capability_is_in_some_key_list_and_missing_in_others(rule):
    has_it = [rule.name in capabilities for _, capabilities, _ in TRANSFORMERS.values()]
    assert any(has_it)
    assert not all(has_it)


def test_vace_blocks_are_no_blocks_of_the_transformer(release):
    assert detect(release("vace 1.3B")).config.layers == 30


def test_blocks_of_side_networks_are_no_blocks_of_the_transformer(release):
    assert detect(release("one-to-all 14B")).config.layers == 40


def test_a_module_in_a_file_of_its_own_gives_its_capability_to_the_model_it_is_joined_with(make_header):
    module = make_header(OTHER_FILES["vace module 1.3B"][0](), name="vace.safetensors")
    base = make_header(TRANSFORMERS["t2v 1.3B"][0]())
    assert spec_of(joined(base, [module])) == detect(make_header(TRANSFORMERS["vace 1.3B"][0]()))


def test_the_sizes_of_t2v_1_3b_are_the_official_ones(release):
    assert detect(release("t2v 1.3B")).config == WanConfig(
        dim=1536, ffn_dim=8960, heads=12, layers=30, in_channels=16, out_channels=16
    )


def test_the_sizes_of_i2v_14b_are_the_official_ones(release):
    assert detect(release("i2v 14B")).config == WanConfig(
        dim=5120,
        ffn_dim=13824,
        heads=40,
        layers=40,
        in_channels=36,
        out_channels=16,
        has_image_branch=True,
    )


def test_the_sizes_of_ti2v_5b_are_the_official_ones(release):
    assert detect(release("ti2v 5B")).config == WanConfig(
        dim=3072, ffn_dim=14336, heads=24, layers=30, in_channels=48, out_channels=48
    )


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("ti2v 5B", "Wan 2.2 TI2V 5B"),
        ("i2v A14B", "Wan 2.2 I2V A14B or Wan 2.2 Fun InP A14B"),
        ("t2v 14B", "Wan 2.1 T2V 14B, Wan 2.2 T2V A14B or 4 more of these shapes"),
    ],
)
def test_models_that_shapes_cannot_tell_apart_are_named_by_the_most_common(release, file, name):
    assert detect(release(file)).name == name


def test_a_size_nobody_released_is_named_by_its_numbers(shapes_of, make_header):
    spec = detect(make_header(shapes_of["wan"]()))
    assert spec.variant is None
    assert spec.name == "Wan transformer of width 256, 2 blocks, 16 to 16 channels"


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "module."])
@pytest.mark.parametrize("layout", [str, to_diffusers])
def test_prefix_and_layout_do_not_change_the_answer(make_header, prefix, layout):
    shapes = TRANSFORMERS["t2v 1.3B"][0]()
    found = detect(make_header({prefix + layout(key): shape for key, shape in shapes.items()}))
    assert found == detect(make_header(shapes))


def test_the_storage_dtypes_are_those_of_the_block_matrices(shapes_of, make_header):
    shapes = shapes_of["wan"]()
    dtypes = {key: torch.float16 for key in shapes if ".self_attn." in key}
    spec = detect(make_header(shapes, dtypes={**dtypes, "patch_embedding.weight": torch.float32}))
    assert spec.dtypes == {torch.float16, torch.bfloat16}


def test_a_family_can_add_its_own_capability(shapes_of, make_header):
    shapes = {**shapes_of["wan"](), "my_family.weight": (2,)}
    spec = detect(make_header(shapes), rules=(*CAPABILITIES, with_key("my family", "my_family.weight")))
    assert "my family" in spec.capabilities


@pytest.mark.parametrize(
    "key", ["head.head.weight", "blocks.0.ffn.0.weight", "time_embedding.0.weight", "patch_embedding.weight"]
)
def test_a_transformer_without_a_size_giving_tensor_is_refused_by_its_name(shapes_of, make_header, key):
    shapes = shapes_of["wan"]()
    del shapes[key]
    with pytest.raises(ModelFileError, match=rf"model\.safetensors: .*{key} is missing"):
        detect(make_header(shapes))


def test_a_missing_block_is_named(shapes_of, make_header):
    shapes = {key: shape for key, shape in shapes_of["wan"](layers=5).items() if "blocks.3." not in key}
    with pytest.raises(ModelFileError, match="block 3 is missing"):
        detect(make_header(shapes))


def test_a_width_that_is_no_multiple_of_a_head_is_refused(shapes_of, make_header):
    with pytest.raises(ModelFileError, match="has width 200"):
        detect(make_header(shapes_of["wan"](dim=200)))


def test_a_patch_embedding_of_another_rank_is_refused(shapes_of, make_header):
    shapes = {**shapes_of["wan"](), "patch_embedding.weight": (256, 64)}
    with pytest.raises(ModelFileError, match=r"patch_embedding\.weight has shape \[256, 64\]"):
        detect(make_header(shapes))


def test_a_transformer_is_described_by_its_release(release):
    assert describe_file(release("ti2v 5B")) == "Wan transformer (Wan 2.2 TI2V 5B)"


def test_an_incomplete_transformer_is_described_as_such(shapes_of, make_header):
    shapes = shapes_of["wan"]()
    del shapes["head.head.weight"]
    assert describe_file(make_header(shapes)) == "incomplete Wan transformer"
