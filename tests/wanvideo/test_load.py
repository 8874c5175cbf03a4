"""Transformers from files in every storage format, against the same numbers in float32."""

from functools import partial
from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill, specs
from comfyui_wanvideo.tools.tiny import formats as tiny
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.conversion import Conversion
from comfyui_wanvideo.wanvideo.weights.formats import DENSE
from comfyui_wanvideo.wanvideo.weights.formats.scaled import ScaledFormat
from comfyui_wanvideo.wanvideo.weights.fp8_matmul import use_fp8_matmul
from comfyui_wanvideo.wanvideo.weights.keys import to_diffusers
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from comfyui_wanvideo.wanvideo.weights.residency import Residency
from safetensors.torch import load_file, save_file
from torch import Tensor

from .weights.formats.reference import dequantised_file

pytest.importorskip("comfy_kitchen")

SIZE = specs.DiTSize(layers=1)
SHAPES = specs.dit(SIZE)
PRODUCT_BOUND = 0.1  # more, for products of a device that quantise the activations too
FP8, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
# Relative error of a forward against the unquantised model: what the narrowest format of a file allows.
BOUND = {
    "fp8_e4m3fn": 0.05,
    "fp8_e5m2": 0.1,
    "fp8_scaled": 0.05,
    "fp8_scaled_rows": 0.05,
    "fp8_scaled_blocks": 0.05,
    "fp8_e5m2_scaled": 0.1,
    "comfy_fp8": 0.05,
    "comfy_fp8_e5m2": 0.1,
    "comfy_int8": 0.03,
    "comfy_int8_convrot": 0.02,
    "comfy_mxfp8": 0.05,
    "comfy_nvfp4": 0.15,
    "comfy_convrot_w4a4": 0.25,
    "metadata": 0.05,
    "mixed": 0.15,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """One file per format, all of the same numbers before they were quantised."""
    folder = tmp_path_factory.mktemp("formats")
    paths = {name: folder / f"{name}.safetensors" for name in (*BOUND, "dense")}
    for name, quantise in tiny.DIT_FORMATS.items():
        tiny.write_dit(paths[name], 0, quantise_of=lambda _key, quantise=quantise: quantise, size=SIZE)
    tiny.write_dit(paths["mixed"], 0, quantise_of=tiny.mixed, size=SIZE)
    tiny.write_dit(paths["metadata"], 0, quantise_of=lambda _key: tiny.comfy_fp8, in_metadata=True, size=SIZE)
    save_file(fill.tensors(SHAPES, file="dit", seed=0), paths["dense"])
    return paths


def load(path, dtype=torch.float32, **options) -> WanTransformer:
    return load_transformer(Checkpoint.open(path), compute_dtype=dtype, **options).transformer


def forward(model: WanTransformer) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 16, 2, 6, 8, generator=generator)
    text = torch.randn(7, SIZE.text_width, generator=generator)
    conditioning = Conditioning(VideoGeometry(64, 48, 5), text=(text,))
    with torch.inference_mode():
        return model(
            latent.to(model.device), [637.25], conditioning, RunState(RunOptions(attention=sdpa))
        ).cpu()


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.fixture(scope="module")
def exact(files) -> Tensor:
    return forward(load(files["dense"]))


def dequantised_path(path: Path, tmp_path: Path) -> Path:
    """The file's numbers as float32, computed without the pack; descriptions in the metadata included."""
    tensors = load_file(path)
    save_file(dequantised_file(tensors, SHAPES), tmp_path / "dequantised.safetensors")
    return tmp_path / "dequantised.safetensors"


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize("name", BOUND)
def test_a_forward_equals_that_of_the_dequantised_numbers(name, dtype, bound, files, tmp_path):
    expected = forward(load(dequantised_path(files[name], tmp_path)))
    assert relative_error(forward(load(files[name], dtype)), expected) < bound


@pytest.mark.parametrize("name", BOUND)
def test_a_forward_is_within_the_error_of_the_format(name, files, exact):
    assert relative_error(forward(load(files[name])), exact) < BOUND[name]


@pytest.mark.parametrize("name", BOUND)
def test_load_unload_load_gives_the_same_bits(name, files):
    """The device is a stand-in: copies in the same memory under another device's name."""
    model = load(files[name], torch.bfloat16)
    results = [forward(model)]
    residency = Residency(model, copy=lambda tensor, _device: tensor.clone())
    for move in (partial(residency.load, "meta"), residency.unload, partial(residency.load, "meta")):
        move()
        results.append(forward(model))
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("name", BOUND)
def test_the_weights_of_the_blocks_are_views_on_the_file(name, files):
    checkpoint = Checkpoint.open(files[name])
    model = load_transformer(checkpoint, compute_dtype=torch.bfloat16).transformer
    for path, layer in model.blocks.named_modules():
        if isinstance(layer, WanLinear):
            key = f"blocks.{path}.weight"
            assert layer.weight.data_ptr() == checkpoint.tensor(key).data_ptr(), key


@pytest.mark.parametrize("name", BOUND)
def test_no_key_of_a_quantised_file_is_unexpected(name, files, caplog):
    load(files[name])
    assert "unexpected" not in caplog.text


def test_each_layer_of_a_mixed_file_has_its_own_format(files):
    model = load(files["mixed"])
    formats = {layer.format.name for layer in model.modules() if isinstance(layer, WanLinear)}
    assert formats == {
        "dense",
        "scaled fp8",
        "nvfp4",
        "mxfp8",
        "convrot_w4a4",
        "int8_tensorwise",
        "int8_tensorwise (convrot)",
    }


def test_e5m2_with_scales_stays_e5m2(files):
    assert load(files["fp8_e5m2_scaled"]).state_dict()["blocks.0.ffn.0.weight"].dtype == E5M2


def test_scales_stay_float32_in_a_bf16_model(files):
    tensors = load(files["fp8_scaled"], torch.bfloat16).state_dict()
    assert tensors["blocks.0.ffn.0.weight_scale"].dtype == torch.float32


@pytest.mark.parametrize("rename", [lambda key: f"model.diffusion_model.{key}", to_diffusers])
def test_names_do_not_change_what_is_read(rename, files, tmp_path):
    tensors = {rename(key): tensor for key, tensor in load_file(files["mixed"]).items()}
    save_file(tensors, tmp_path / "renamed.safetensors")
    assert torch.equal(forward(load(tmp_path / "renamed.safetensors")), forward(load(files["mixed"])))


@pytest.mark.parametrize("marked", [1, 2])
def test_a_scaled_patch_embedding_is_decoded(marked, files, tmp_path, exact):
    tensors = load_file(files["dense"])
    patches = tensors["patch_embedding.weight"]
    scale = patches.abs().max() / 448
    stored = {
        **tensors,
        "patch_embedding.weight": (patches / scale).to(FP8),
        "patch_embedding.scale_weight": scale,
        "scaled_fp8": torch.zeros(marked, dtype=FP8),
    }
    save_file(stored, tmp_path / "m.safetensors")
    assert relative_error(forward(load(tmp_path / "m.safetensors")), exact) < 0.05


def test_norms_and_modulation_in_fp8_are_decoded(files, tmp_path, exact):
    tensors = load_file(files["dense"])
    stored = {
        key: tensor.to(FP8) if "norm" in key or "modulation" in key else tensor
        for key, tensor in tensors.items()
    }
    save_file(stored, tmp_path / "m.safetensors")
    assert relative_error(forward(load(tmp_path / "m.safetensors")), exact) < 0.05


# conversion while loading


@pytest.mark.parametrize("scaling", ["none", "row", "tensor"])
@pytest.mark.parametrize(("dtype", "bound"), [(FP8, 0.05), (E5M2, 0.1)], ids=str)
def test_a_wide_file_can_be_converted(files, exact, dtype, bound, scaling):
    model = load(files["dense"], conversion=Conversion(dtype, scaling))
    assert relative_error(forward(model), exact) < bound


def test_a_plain_conversion_equals_a_file_of_plain_fp8(files):
    found = load(files["dense"], conversion=Conversion(FP8))
    stored = load(files["fp8_e4m3fn"])
    for (path, ours), theirs in zip(found.blocks.named_modules(), stored.blocks.modules(), strict=True):
        if isinstance(ours, WanLinear) and isinstance(theirs, WanLinear):
            assert torch.equal(ours.weight.view(torch.uint8), theirs.weight.view(torch.uint8)), path


def test_only_linear_weights_of_the_blocks_are_converted(files):
    model = load(files["dense"], torch.bfloat16, conversion=Conversion(FP8, "row"))
    converted = {name for name, tensor in model.named_parameters() if tensor.dtype == FP8}
    expected = {
        key for key in SHAPES if key.startswith("blocks.") and key.endswith(".weight") and "norm" not in key
    }
    assert converted == expected


def test_a_conversion_leaves_a_quantised_file_as_it_is(files):
    model = load(files["fp8_e5m2_scaled"], conversion=Conversion(FP8))
    assert torch.equal(forward(model), forward(load(files["fp8_e5m2_scaled"])))


# further files


def extend_with(name, form=DENSE):
    """A family that adds one linear layer to the model."""

    def extend(model, _checkpoint, _spec):
        model.add_module(name, WanLinear(16, 16))

    return extend


def test_an_extra_file_brings_modules_in_its_own_format(files, tmp_path):
    weight = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    layer = {**tiny.scaled_fp8(weight), "bias": torch.zeros(16)}
    save_file(
        {f"model.extra_proj.{name}": part for name, part in layer.items()}, tmp_path / "extra.safetensors"
    )
    extra = Checkpoint.open(tmp_path / "extra.safetensors")
    model = load(files["dense"], extras=[extra], extend=extend_with("extra_proj"))
    found = model.get_submodule("extra_proj")
    assert isinstance(found, WanLinear)
    assert found.format == ScaledFormat()
    torch.testing.assert_close(found.materialize(torch.float32), weight, atol=0.15, rtol=0.07)


def test_a_wrong_shape_in_an_extra_file_names_that_file(files, tmp_path):
    layer = {**tiny.scaled_fp8(torch.ones(16, 16)), "scale_weight": torch.ones(3), "bias": torch.zeros(16)}
    save_file({f"extra_proj.{name}": part for name, part in layer.items()}, tmp_path / "extra.safetensors")
    extra = Checkpoint.open(tmp_path / "extra.safetensors")
    with pytest.raises(ModelFileError, match=r"extra\.safetensors: extra_proj\.weight_scale has shape \[3\]"):
        load(files["dense"], extras=[extra], extend=extend_with("extra_proj"))


def test_an_extra_file_the_model_does_not_use_is_refused(files, tmp_path):
    save_file({"unheard_of.weight": torch.ones(2)}, tmp_path / "extra.safetensors")
    with pytest.raises(ModelFileError, match=r"extra\.safetensors: none of its weights has a place"):
        load(files["dense"], extras=[Checkpoint.open(tmp_path / "extra.safetensors")])


def test_the_spec_names_the_formats_of_the_file(files):
    loaded = load_transformer(Checkpoint.open(files["comfy_nvfp4"]), compute_dtype=torch.float32)
    assert "stored as nvfp4" in str(loaded.spec)


def test_a_model_in_shards_loads(tmp_path):
    path = tmp_path / "m-00001-of-00002.safetensors"
    tiny.write_shards(path, 0)
    assert len(load(path).blocks) == specs.DiTSize().layers


def test_half_a_model_is_refused_with_the_name_of_the_other_half(tmp_path):
    path = tmp_path / "m-00001-of-00002.safetensors"
    tiny.write_shards(path, 0, is_complete=False)
    with pytest.raises(ModelFileError, match=r"missing in the same folder: m-00002-of-00002\.safetensors"):
        load(path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fp8_products", [False, True])
@pytest.mark.parametrize("name", BOUND)
def test_a_forward_on_a_gpu_is_within_the_error_of_the_format(files, name, fp8_products):
    model, device = load(files[name], torch.bfloat16), torch.device("cuda")
    if fp8_products:
        use_fp8_matmul(model, device, torch.bfloat16)
    Residency(model).load(device)
    assert relative_error(forward(model), forward(load(files["dense"]))) < BOUND[name] + PRODUCT_BOUND
