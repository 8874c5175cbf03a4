"""A run through the queue with a file in every storage format, against the same weights in float32."""

import pytest
from comfyui_wanvideo.tools.tiny import make

from .graphs import text_to_latent

LATENT = ["sampler", 0]
# Largest relative error of the latent, by what the name of the file says of its format: two to four times
# what the tiny models show, which is a few times the rounding of the weights. That weights are decoded
# exactly is shown in tests/wanvideo/test_load.py and tests/wanvideo/weights.
BOUNDS = {
    "q8_0": 4e-3,
    "q6_k": 1.2e-2,
    "q5_": 3e-2,
    "q4_": 5e-2,
    "iq4_": 6e-2,
    "q3_k": 0.14,
    "q2_k": 0.22,
    "nvfp4": 6e-2,
    "w4a4": 9e-2,
    "mixed": 5e-2,
    "mxfp8": 2e-2,
    "int8": 7e-3,
    "e5m2": 4e-2,
    "fp8": 2e-2,
    "bf16": 4e-3,
}


def files(folder):
    """The names of the tiny files of a model folder in the two groups."""
    return [
        file.name for file in make.FILES if file.folder == folder and file.group in (make.FORMATS, make.GGUF)
    ]


def bound(name):
    """The bound of a file or a loader option."""
    return next(bound for part, bound in BOUNDS.items() if part in name.lower())


@pytest.fixture(scope="module", autouse=True)
def format_models(comfy):
    make.write(comfy.base / "models", (make.FORMATS, make.GGUF))


def latent_of(comfy, **inputs):
    run = comfy.run(text_to_latent(seed=5, steps=2, cfg=1.0, **inputs), keep={"latent": LATENT})
    assert run.status == "success", run.message
    return run.kept["latent"].tensors["samples"]


@pytest.fixture(scope="module")
def plain(comfy, format_models):
    return latent_of(comfy)


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", files("diffusion_models"))
def test_a_model_in_any_format_equals_the_plain_one_within_the_formats_rounding(comfy, plain, name):
    error = relative_error(latent_of(comfy, model=name), plain)
    assert 0 < error <= bound(name)


@pytest.mark.parametrize("name", files("text_encoders"))
def test_a_text_encoder_in_any_format_equals_the_plain_one_within_the_formats_rounding(comfy, plain, name):
    error = relative_error(latent_of(comfy, text_encoder=name), plain)
    assert 0 < error <= bound(name)


@pytest.mark.parametrize("scaling", ["none", "row", "tensor"])
@pytest.mark.parametrize("option", ["fp8_e4m3fn", "fp8_e5m2_fast"])
def test_a_plain_file_is_converted_within_the_formats_rounding(comfy, plain, option, scaling):
    loader = {"quantization": option, "fp8_scaling": scaling}
    error = relative_error(latent_of(comfy, loader=loader), plain)
    assert 0 < error <= bound(option)


@pytest.mark.parametrize(("precision", "allowed"), [("bf16", 1e-2), ("fp16", 2e-3), ("fp16_fast", 2e-3)])
def test_a_narrower_precision_equals_fp32_within_its_rounding(comfy, plain, precision, allowed):
    error = relative_error(latent_of(comfy, loader={"base_precision": precision}), plain)
    assert 0 < error <= allowed


def test_gguf_files_are_in_the_lists_of_our_loaders_and_not_in_comfyuis(comfy):
    ours = comfy.client.object_info()["WanVideoModelLoader"]["input"]["required"]["model"][1]["options"]
    assert "tiny_wan21_t2v_q8_0.gguf" in ours
    assert "tiny_wan21_t2v_q8_0.gguf" not in comfy.models("diffusion_models")
