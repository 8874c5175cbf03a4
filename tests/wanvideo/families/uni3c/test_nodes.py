"""The nodes of Uni3C."""

import importlib

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange


@pytest.fixture
def nodes(comfyui_path):
    return importlib.import_module("comfyui_wanvideo.wanvideo.families.uni3c.nodes")


@pytest.fixture
def load(nodes, file, monkeypatch):
    monkeypatch.setattr(nodes, "resolve_file", lambda *_, **__: file)

    def run(**inputs):
        given = {
            "model": file.name,
            "base_precision": "fp32",
            "quantization": "disabled",
            "load_device": "offload_device",
            "attention_mode": "sdpa",
        }
        return nodes.WanVideoUni3CControlnetLoader.execute(**{**given, **inputs})[0]

    return run


@pytest.fixture
def embeds(nodes, load):
    def run(**inputs):
        given = {
            "controlnet": load(),
            "strength": 1.0,
            "start_percent": 0.0,
            "end_percent": 1.0,
            "render_latent": {"samples": torch.zeros(1, 16, 3, 6, 8)},
        }
        return nodes.WanVideoUni3CEmbeds.execute(**{**given, **inputs})[0]

    return run


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
def test_the_controlnet_computes_in_the_precision_chosen(load, precision, dtype):
    assert load(base_precision=precision).controlnet.network.compute_dtype == dtype


def test_quantization_converts(load):
    network = load(quantization="fp8_e5m2").controlnet.network
    assert network.controlnet_blocks[0].ffn[0].weight.dtype == torch.float8_e5m2


def test_the_render_goes_to_the_sampler_with_its_network(embeds, load):
    loaded = load()
    attached = embeds(controlnet=loaded, strength=0.6, start_percent=0.1, end_percent=0.5)
    assert attached.name == "uni3c"
    assert attached.companions == (loaded.managed,)
    assert (attached.value.strength, attached.value.steps) == (0.6, StepRange(0.1, 0.5))


def test_a_mask_is_optional_and_may_be_one_picture(embeds):
    assert embeds().value.mask is None
    assert embeds(render_mask=torch.ones(48, 64)).value.mask.values.shape == (1, 48, 64)


def test_a_missing_render_is_an_error_that_says_what_to_do(embeds):
    with pytest.raises(Exception, match="render_latent: no render is connected; encode one"):
        embeds(render_latent=None)


def test_another_controlnet_is_refused(embeds):
    with pytest.raises(Exception, match="controlnet: got dict; connect WanVideo Uni3C Controlnet Loader"):
        embeds(controlnet={})


def test_a_file_of_another_kind_is_refused_before_the_run(nodes, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file(
        {"control_encoder.0.0.weight": torch.zeros(1), "controlnet_blocks.0.weight": torch.zeros(1)}, path
    )
    monkeypatch.setattr(nodes, "check_file", lambda *_, **__: True)
    monkeypatch.setattr(nodes, "resolve_file", lambda *_, **__: path)
    answer = nodes.WanVideoUni3CControlnetLoader.validate_inputs(model=path.name)
    assert "model: " in answer
    assert "it looks like a Wan controlnet" in answer
