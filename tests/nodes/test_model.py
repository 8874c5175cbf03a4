"""The model loader: formats, precisions, memory settings."""

import logging

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill, specs
from comfyui_wanvideo.wanvideo.errors import InputError, ModelFileError, NotYetError
from safetensors.torch import load_file, save_file

QUERY = "blocks.0.self_attn.q.weight"


@pytest.fixture
def loader(node_module):
    return node_module("model").WanVideoModelLoader


def query(model):
    return model.transformer.get_parameter(QUERY)


def test_a_plain_file_is_read_as_it_is_stored(load_model):
    model = load_model()
    assert query(model).dtype == torch.float32
    assert model.sums_in_fp16 is False
    assert model.compiling is None


@pytest.mark.parametrize(
    ("option", "dtype"), [("fp8_e4m3fn", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)]
)
def test_quantization_converts_the_blocks_of_a_wide_file(load_model, option, dtype):
    model = load_model(quantization=option)
    assert query(model).dtype == dtype
    assert model.transformer.text_embedding[0].weight.dtype == torch.float32


@pytest.mark.parametrize(("scaling", "shape"), [("row", (128,)), ("tensor", ())])
def test_fp8_scaling_keeps_factors(load_model, scaling, shape):
    model = load_model(quantization="fp8_e4m3fn", fp8_scaling=scaling)
    assert model.transformer.get_parameter(f"{QUERY}_scale").shape == shape


@pytest.mark.parametrize("value", ["", None, "none"])
def test_the_empty_fp8_scaling_of_an_old_graph_means_none(load_model, loader, value):
    model = load_model(quantization="fp8_e4m3fn", fp8_scaling=value)
    assert f"{QUERY}_scale" not in dict(model.transformer.named_parameters())
    assert loader.validate_inputs("tiny.safetensors", fp8_scaling=value) is True


def test_an_unknown_fp8_scaling_is_refused_by_name(loader, transformer_files):
    answer = loader.validate_inputs("tiny.safetensors", fp8_scaling="column")
    assert answer == "fp8_scaling: 'column' is not one of none, row, tensor"


def test_a_quantization_that_contradicts_the_file_is_refused_before_loading(loader, transformer_files):
    answer = loader.validate_inputs("tiny.safetensors", quantization="fp8_e4m3fn_scaled")
    assert answer.startswith("quantization: fp8_e4m3fn_scaled")


def test_an_attention_mode_without_its_library_is_refused_before_loading(loader, transformer_files):
    answer = loader.validate_inputs("tiny.safetensors", attention_mode="sageattn_3")
    assert answer.startswith("attention_mode: sageattn_3 needs the Python package")


def test_a_file_that_is_no_transformer_is_refused_before_loading(loader, transformer_files):
    save_file({"x": torch.zeros(1)}, transformer_files / "other.safetensors")
    assert loader.validate_inputs("other.safetensors").startswith("model: other.safetensors")


def test_fp8_products_are_said_to_be_missing_on_the_cpu(load_model, caplog):
    load_model(base_precision="bf16", quantization="fp8_e4m3fn_fast")
    assert "fp8 products in 0 of" in caplog.text


def test_fp16_fast_computes_in_fp16_and_asks_for_fp16_sums_of_the_run(load_model):
    model = load_model(base_precision="fp16_fast")
    assert model.transformer.compute_dtype == torch.float16
    assert model.sums_in_fp16 is hasattr(torch.backends.cuda.matmul, "allow_fp16_accumulation")
    assert not getattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", False)


def test_too_many_blocks_to_swap_are_said_with_both_numbers(load_model, node_module, caplog):
    settings = node_module("memory_settings").BlockSwapSettings(blocks_to_swap=40)
    load_model(block_swap_args=settings)
    assert "WanVideo Model Loader: block_swap_args: blocks_to_swap is 40, the model has 4" in caplog.text


def test_set_block_swap_changes_the_settings_and_keeps_the_weights(load_model, node_module):
    memory, settings = node_module("memory"), node_module("memory_settings")
    model = load_model(load_device="main_device")
    swap = settings.BlockSwapSettings(blocks_to_swap=3)
    changed = memory.WanVideoSetBlockSwap.run(model, swap).result[0]
    assert changed.managed is model.managed
    assert changed.memory.min_streamed(4) == 3
    assert changed.memory.stays_on_device


def test_set_block_swap_with_nothing_connected_plans_by_itself(load_model, node_module):
    memory, settings = node_module("memory"), node_module("memory_settings")
    model = load_model(block_swap_args=settings.BlockSwapSettings(blocks_to_swap=3))
    assert memory.WanVideoSetBlockSwap.run(model).result[0].memory == settings.MemorySettings()


def test_set_block_swap_refuses_another_model(node_module):
    with pytest.raises(InputError, match="model"):
        node_module("memory").WanVideoSetBlockSwap.run(object())


def test_an_extra_file_that_fits_nothing_is_refused_with_its_kind(load_model, transformer_files):
    path = transformer_files / "extra.safetensors"
    size = specs.VAESize(base=8)
    save_file(fill.tensors(specs.wan21_vae(size), file="vae", seed=1), path)
    with pytest.raises(ModelFileError, match=r"extra.safetensors: .*VAE"):
        load_model(extra_model=(path,))


@pytest.mark.parametrize("socket", ["extra_model", "vace_model"])
def test_an_extra_file_brings_what_the_main_file_lacks(load_model, transformer_files, socket):
    whole = load_model()
    tensors = load_file(transformer_files / "tiny.safetensors")
    moved = {key: tensors.pop(key) for key in list(tensors) if key.startswith("blocks.3.ffn.")}
    save_file(tensors, transformer_files / "tiny.safetensors")
    save_file(moved, transformer_files / "extra.safetensors")
    joined = load_model(**{socket: (transformer_files / "extra.safetensors",)})
    expected = whole.transformer.get_parameter("blocks.3.ffn.2.weight")
    assert torch.equal(joined.transformer.get_parameter("blocks.3.ffn.2.weight"), expected)


def test_lora_is_still_refused_by_name(load_model):
    with pytest.raises(NotYetError, match="lora"):
        load_model(lora=[{"name": "a"}])


def test_the_log_says_what_was_loaded(load_model, caplog):
    with caplog.at_level(logging.INFO):
        load_model()
    assert "tiny.safetensors: Wan transformer" in caplog.text
