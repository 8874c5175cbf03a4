"""What a file is, from its header. Sizes and channels are those of the released files."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.weights.capabilities import CAPABILITIES, with_key
from comfyui_wanvideo.wanvideo.weights.detect import describe_file, detect
from comfyui_wanvideo.wanvideo.weights.keys import to_diffusers

SMALL = {"dim": 1536, "ffn": 8960, "layers": 30}
LARGE = {"dim": 5120, "ffn": 13824, "layers": 40}
FIVE = {"dim": 3072, "ffn": 14336, "layers": 30}


def ref_conv(dim, channels):
    return {"ref_conv.weight": (dim, channels, 2, 2), "ref_conv.bias": (dim,)}


def camera(dim, factor):
    return {"control_adapter.conv.weight": (dim, 24 * factor**2, 2, 2)}


RELEASES = {
    "Wan 2.1 T2V 1.3B": (SMALL, {}, {}, {"t2v", "text"}),
    "Wan 2.1 T2V 14B": (LARGE, {}, {}, {"t2v", "text"}),
    "Wan 2.2 T2V A14B": (LARGE, {}, {}, {"t2v", "text"}),
    "Wan 2.1 I2V 14B 480P": (LARGE, {"cin": 36, "image": True}, {}, {"i2v", "clip image", "text"}),
    "Wan 2.1 I2V 14B 720P": (LARGE, {"cin": 36, "image": True}, {}, {"i2v", "clip image", "text"}),
    "Wan 2.1 FLF2V 14B 720P": (
        LARGE,
        {"cin": 36, "image": True, "flf": True},
        {},
        {"i2v", "clip image", "first and last frame", "text"},
    ),
    "Wan 2.2 I2V A14B": (LARGE, {"cin": 36}, {}, {"i2v", "text"}),
    "Wan 2.2 TI2V 5B": (FIVE, {"cin": 48, "cout": 48}, {}, {"t2v", "clean first frame", "text"}),
    "Wan 2.1 Fun InP 1.3B": (SMALL, {"cin": 36, "image": True}, {}, {"i2v", "clip image", "text"}),
    "Wan 2.2 Fun InP 5B": (FIVE, {"cin": 100, "cout": 48}, {}, {"i2v", "text"}),
    "Wan 2.1 Fun Control 14B": (
        LARGE,
        {"cin": 48, "image": True},
        {},
        {"fun control", "clip image", "text"},
    ),
    "Wan 2.1 Fun Control V1.1 1.3B": (
        SMALL,
        {"cin": 48, "image": True},
        ref_conv(1536, 16),
        {"fun control", "fun reference", "clip image", "text"},
    ),
    "Wan 2.2 Fun Control A14B": (
        LARGE,
        {"cin": 52},
        ref_conv(5120, 16),
        {"fun control", "fun reference", "text"},
    ),
    "Wan 2.2 Fun Control 5B": (
        FIVE,
        {"cin": 148, "cout": 48},
        ref_conv(3072, 48),
        {"fun control", "fun reference", "text"},
    ),
    "Wan 2.1 Fun Camera V1.1 14B": (
        LARGE,
        {"cin": 32, "image": True},
        camera(5120, 8),
        {"fun camera", "clip image", "text"},
    ),
    "Wan 2.2 Fun Camera A14B": (LARGE, {"cin": 36}, camera(5120, 8), {"fun camera", "i2v", "text"}),
    "Wan 2.2 Fun Camera 5B": (
        FIVE,
        {"cin": 100, "cout": 48},
        camera(3072, 16),
        {"fun camera", "i2v", "text"},
    ),
}


@pytest.fixture
def release(shapes_of, make_header):
    def make(name):
        size, channels, extra, _ = RELEASES[name]
        return make_header({**shapes_of["wan"](**size, **channels), **extra})

    return make


@pytest.mark.parametrize("name", RELEASES)
def test_the_capabilities_of_a_release_are_found(release, name):
    assert detect(release(name)).capabilities == RELEASES[name][3]


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_is_among_the_variants_of_its_file(release, name):
    assert name in [variant.name for variant in detect(release(name)).variants]


@pytest.mark.parametrize(
    ("size", "vace_layers", "name"), [(SMALL, 15, "Wan 2.1 VACE 1.3B"), (LARGE, 8, "Wan 2.1 VACE 14B")]
)
def test_a_full_vace_file_is_a_transformer_with_vace(shapes_of, make_header, size, vace_layers, name):
    vace = shapes_of["vace"](size["dim"], size["ffn"], vace_layers)
    spec = detect(make_header({**shapes_of["wan"](**size), **vace}))
    assert spec.capabilities == {"t2v", "text", "vace"}
    assert spec.config.layers == size["layers"]
    assert spec.name == name


def test_the_sizes_of_t2v_1_3b_are_the_official_ones(release):
    assert detect(release("Wan 2.1 T2V 1.3B")).config == WanConfig(
        dim=1536, ffn_dim=8960, heads=12, layers=30, in_channels=16, out_channels=16
    )


def test_the_sizes_of_i2v_14b_are_the_official_ones(release):
    assert detect(release("Wan 2.1 I2V 14B 480P")).config == WanConfig(
        dim=5120,
        ffn_dim=13824,
        heads=40,
        layers=40,
        in_channels=36,
        out_channels=16,
        has_image_branch=True,
    )


def test_the_sizes_of_ti2v_5b_are_the_official_ones(release):
    assert detect(release("Wan 2.2 TI2V 5B")).config == WanConfig(
        dim=3072, ffn_dim=14336, heads=24, layers=30, in_channels=48, out_channels=48
    )


def test_models_that_shapes_cannot_tell_apart_are_all_named(release):
    assert detect(release("Wan 2.2 T2V A14B")).name == "Wan 2.1 T2V 14B or Wan 2.2 T2V A14B"


def test_a_size_nobody_released_is_named_by_its_numbers(shapes_of, make_header):
    spec = detect(make_header(shapes_of["wan"]()))
    assert spec.variant is None
    assert spec.name == "Wan transformer of width 256, 2 blocks, 16 to 16 channels"


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "module."])
@pytest.mark.parametrize("layout", [str, to_diffusers])
def test_prefix_and_layout_do_not_change_the_answer(shapes_of, make_header, prefix, layout):
    shapes = shapes_of["wan"](**SMALL)
    found = detect(make_header({prefix + layout(key): shape for key, shape in shapes.items()}))
    assert found == detect(make_header(shapes))


def test_the_storage_dtypes_are_those_of_the_block_matrices(shapes_of, make_header):
    shapes = shapes_of["wan"]()
    dtypes = {key: torch.float16 for key in shapes if ".self_attn." in key}
    spec = detect(make_header(shapes, dtypes={**dtypes, "patch_embedding.weight": torch.float32}))
    assert spec.dtypes == {torch.float16, torch.bfloat16}


@pytest.mark.parametrize(
    ("channels", "extra", "capability"),
    [
        ({"cin": 48}, {}, "unilumos"),
        ({}, {"fps_embedding.weight": (2, 256)}, "fps embedding"),
        ({}, {"blocks.0.cam_encoder.weight": (256, 12)}, "recammaster"),
        ({"cin": 36}, {"text_projection.0.weight": (256, 3584)}, "bindweave"),
        ({}, {"casual_audio_encoder.encoder.final_linear.weight": (2, 2)}, "s2v"),
        ({"cin": 36}, {"audio_proj.audio_proj_glob_1.layer.bias": (2,)}, "humo"),
        ({"cin": 36, "image": True}, {"pose_patch_embedding.weight": (256, 16, 1, 2, 2)}, "animate"),
        ({"cin": 20, "image": True}, {"patch_embedding_pose.weight": (256, 20, 1, 2, 2)}, "scail"),
        ({"cin": 36, "image": True}, {"patch_embedding_global.weight": (256, 36, 1, 2, 2)}, "wan dancer"),
        ({"cin": 96, "cout": 48}, {}, "lucy edit"),
    ],
)
def test_a_family_is_found_by_its_tensors(shapes_of, make_header, channels, extra, capability):
    assert capability in detect(make_header({**shapes_of["wan"](**channels), **extra})).capabilities


def test_minimax_remover_has_no_text(shapes_of, make_header):
    shapes = {
        key: shape
        for key, shape in shapes_of["wan"](cin=48).items()
        if "cross_attn" not in key and "text_embedding" not in key and "norm3" not in key
    }
    assert detect(make_header(shapes)).capabilities == {"minimax remover"}


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
    assert describe_file(release("Wan 2.1 T2V 1.3B")) == "Wan 2.1 T2V 1.3B transformer"


def test_an_incomplete_transformer_is_described_as_such(shapes_of, make_header):
    shapes = shapes_of["wan"]()
    del shapes["head.head.weight"]
    assert describe_file(make_header(shapes)) == "incomplete Wan transformer"
