"""VACE weights: found in any file, sized by their shapes, beside any model of their width."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import families as shapes
from comfyui_wanvideo.tools.tiny import fill, gguf, specs
from comfyui_wanvideo.wanvideo.errors import InputError, ModelFileError
from comfyui_wanvideo.wanvideo.families.vace.family import FAMILY, layers_of
from comfyui_wanvideo.wanvideo.families.vace.inputs import VACE, VaceInput
from comfyui_wanvideo.wanvideo.request_checks import check_inputs
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.detect import ModelSpec
from safetensors.torch import load_file, save_file

from .conftest import BASE, I2V, MODULE, context_of, evaluation, load, relative_error, setup_of

FP8_TOLERANCE = 0.05
Q8_TOLERANCE = 0.02


@pytest.mark.parametrize(
    ("count", "layers", "expected"),
    [
        (8, 40, [0, 5, 10, 15, 20, 25, 30, 35]),
        (15, 30, list(range(0, 30, 2))),
        (2, 4, [0, 2]),
        (3, 4, [0, 1, 2]),
        (4, 4, [0, 1, 2, 3]),
    ],
)
def test_blocks_are_spread_over_the_model(count, layers, expected):
    assert list(layers_of(count, layers)) == expected


def prediction(model):
    return evaluation()(model, context_of().prepared(setup_of(model)))


def test_module_and_base_are_the_full_checkpoint_bit_for_bit(tiny, model):
    both = load(tiny / f"{BASE}.safetensors", tiny / f"{MODULE}.safetensors")
    assert torch.equal(prediction(both), prediction(model))


def is_matrix_of_a_block(key, tensor):
    return "blocks." in key and key.endswith(".weight") and tensor.ndim == 2


def test_an_fp8_module_beside_an_fp32_base(tiny, tmp_path, model):
    module = load_file(tiny / f"{MODULE}.safetensors")
    save_file(
        {k: v.to(torch.float8_e4m3fn) if is_matrix_of_a_block(k, v) else v for k, v in module.items()},
        tmp_path / "fp8.safetensors",
    )
    mixed = load(tiny / f"{BASE}.safetensors", tmp_path / "fp8.safetensors")
    assert 1e-4 < relative_error(prediction(mixed), prediction(model)) < FP8_TOLERANCE


def test_a_gguf_module_beside_an_fp32_base(tiny, tmp_path, model):
    module = load_file(tiny / f"{MODULE}.safetensors")
    types = {k: "Q8_0" if is_matrix_of_a_block(k, v) else "F32" for k, v in module.items()}
    gguf.write_tensors(tmp_path / "q8.gguf", "wan", module, types, {})
    mixed = load(tiny / f"{BASE}.safetensors", tmp_path / "q8.gguf")
    assert 1e-5 < relative_error(prediction(mixed), prediction(model)) < Q8_TOLERANCE


def test_beside_an_image_to_video_model_its_blocks_have_no_image_branch(tiny):
    model = load(tiny / f"{I2V}.safetensors", tiny / f"{MODULE}.safetensors")
    keys = model.state_dict().keys()
    assert "blocks.0.cross_attn.k_img.weight" in keys
    assert "vace_blocks.0.cross_attn.k.weight" in keys
    assert "vace_blocks.0.cross_attn.k_img.weight" not in keys
    assert {"vace", "image"} <= model.accepted_inputs()


def test_its_blocks_run_right_behind_those_they_add_to(model):
    order = [(stage.stream, stage.index) for stage in model.stages()]
    assert order == [(None, 0), (VACE, 1), (None, 1), (None, 2), (VACE, 3), (None, 3)]


def module_file(tmp_path, change, size=None, layers=2):
    tensors = fill.tensors(shapes.vace(size or specs.DiTSize(), layers), file="vace", seed=0)
    path = tmp_path / "module.safetensors"
    save_file(change(tensors), path)
    return path


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("vace_patch_embedding.weight", "vace_patch_embedding.weight is missing"),
        ("vace_blocks.1.after_proj.bias", "vace_blocks.1.after_proj.bias"),
    ],
)
def test_an_incomplete_module_is_refused_by_the_key(tiny, tmp_path, lost, named):
    module = module_file(tmp_path, lambda tensors: {k: v for k, v in tensors.items() if k != lost})
    with pytest.raises(ModelFileError, match=named.replace(".", r"\.")):
        load(tiny / f"{BASE}.safetensors", module)


def test_a_module_for_models_of_another_width_is_refused_by_both_widths(tiny, tmp_path):
    module = module_file(tmp_path, dict, specs.DiTSize(width=128))
    with pytest.raises(ModelFileError, match=r"has width 256.* models of width 128"):
        load(tiny / f"{BASE}.safetensors", module)


def test_a_module_for_other_latents_is_refused_by_both_channel_counts(tiny, tmp_path):
    def wider(tensors):
        patches = tensors["vace_patch_embedding.weight"]
        return {**tensors, "vace_patch_embedding.weight": patches.repeat(1, 2, 1, 1, 1)}

    with pytest.raises(ModelFileError, match=r"has 96 channels; this one has 192"):
        load(tiny / f"{BASE}.safetensors", module_file(tmp_path, wider))


def test_more_blocks_than_the_model_has_are_refused(tiny, tmp_path):
    with pytest.raises(ModelFileError, match="has 4 blocks, fewer than the 5"):
        load(tiny / f"{BASE}.safetensors", module_file(tmp_path, dict, layers=5))


def test_a_model_of_48_channel_latents_takes_a_module_made_for_them(tmp_path):
    size = specs.DiTSize(width=128, in_channels=48, out_channels=48)
    tensors = fill.tensors(shapes.vace(size, 2), file="vace", seed=0)
    patches = tensors["vace_patch_embedding.weight"]
    tensors["vace_patch_embedding.weight"] = torch.cat([patches, patches[:, :64]], 1)
    save_file(tensors, tmp_path / "module.safetensors")
    config = WanConfig(128, 512, 1, 4, 48, 48)
    model = WanTransformer(config)
    spec = ModelSpec(config, frozenset({"vace"}), frozenset())
    FAMILY.extend(model, Checkpoint.open(tmp_path / "module.safetensors"), spec)
    assert model.get_parameter("vace_patch_embedding.weight").shape[1] == 2 * 48 + 64


def test_without_its_weights_its_input_is_refused_with_what_to_do(plain):
    with pytest.raises(InputError, match=r"for vace.* VACE module: choose .* WanVideo VACE Module Select"):
        check_inputs(plain, {VACE: VaceInput((context_of(),))})


def test_a_checkpoint_that_has_it_accepts_its_input(model):
    assert VACE in model.accepted_inputs()
