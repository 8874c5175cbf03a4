"""Attention backends by name."""

import logging

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention import registry
from comfyui_wanvideo.wanvideo.attention.registry import BACKENDS, available, check_available, choose, resolve
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.errors import InputError

from .conftest import rows_before_heads

CPU = torch.device("cpu")
PACKAGES = {name: backend.package for name, backend in BACKENDS.items() if backend.package}


def sageattn(q, k, v, tensor_layout="HND", is_causal=False):
    assert (tensor_layout, is_causal) == ("NHD", False)
    return rows_before_heads(q, k, v)


def broken_sageattn(q, k, v, tensor_layout="HND", is_causal=False):
    return torch.zeros_like(sageattn(q, k, v, tensor_layout, is_causal))


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("find", [check_available, resolve])
def test_a_missing_package_is_named_with_what_to_do(monkeypatch, name, find):
    monkeypatch.setattr("comfyui_wanvideo.wanvideo.attention.backend.is_installed", lambda _package: False)
    with pytest.raises(InputError) as caught:
        find(name)
    assert str(caught.value) == (
        f"attention_mode: {name} needs the Python package {PACKAGES[name]}, which is not installed; "
        "install it into ComfyUI's environment or choose sdpa"
    )


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"sdpa.*radial_sage_attention.*auto"):
        resolve("magic")


def test_the_host_may_lend_a_backend():
    assert resolve("comfy", host_backends={"comfy": sdpa}) is sdpa


def test_an_installed_library_is_found_without_running_it(library):
    library("sageattention")
    assert resolve("sageattn") is BACKENDS["sageattn"].function


def test_a_library_is_refused_on_a_device_it_does_not_support(library):
    library("sageattention", sageattn=sageattn)
    with pytest.raises(InputError, match=r"sageattn cannot be used: .* NVIDIA GPU .*; choose sdpa or auto"):
        resolve("sageattn", device=CPU)


def test_a_library_with_wrong_numbers_is_refused_with_the_error_it_made(library, on_any_device):
    on_any_device("sageattn")
    library("sageattention", sageattn=broken_sageattn)
    with pytest.raises(InputError, match=r"sageattn cannot be used: .* wrong numbers .* relative error 1 "):
        resolve("sageattn", device=CPU)


def test_a_library_with_right_numbers_is_used(library, on_any_device):
    on_any_device("sageattn")
    library("sageattention", sageattn=sageattn)
    assert resolve("sageattn", device=CPU) is BACKENDS["sageattn"].function


def test_auto_without_libraries_is_sdpa():
    assert choose(CPU, torch.bfloat16) == "sdpa"


def test_auto_takes_the_fastest_that_works(library, on_any_device):
    on_any_device("sageattn", "flash_attn_2")
    library("sageattention", sageattn=sageattn)
    library("flash_attn", flash_attn_func=lambda q, k, v, causal: rows_before_heads(q, k, v))
    assert choose(CPU, torch.bfloat16) == "sageattn"


def test_auto_passes_over_a_library_with_wrong_numbers_and_says_so_in_one_line(
    library, on_any_device, caplog
):
    on_any_device("sageattn", "flash_attn_2")
    library("sageattention", sageattn=broken_sageattn)
    library("flash_attn", flash_attn_func=lambda q, k, v, causal: rows_before_heads(q, k, v))
    with caplog.at_level(logging.WARNING):
        assert choose(CPU, torch.bfloat16) == "flash_attn_2"
    (record,) = caplog.records
    assert "attention auto: flash_attn_2 is used; sageattention" in record.getMessage()
    assert "wrong numbers" in record.getMessage()


def test_auto_keeps_float32(library, on_any_device):
    on_any_device("sageattn")
    library("sageattention", sageattn=sageattn)
    assert choose(CPU, torch.float32) == "sdpa"


def test_auto_never_takes_four_bits():
    assert "sageattn_3" not in registry.FASTEST_FIRST


def test_available_names_what_works_here(library, on_any_device):
    on_any_device("sageattn")
    library("sageattention", sageattn=sageattn)
    assert available(CPU) == ("sdpa", "sageattn")


@pytest.mark.parametrize("mode", ["radial_sage_attention", "sageattn_ultravico"])
def test_modes_by_place_in_the_video_are_no_plain_functions(mode):
    check_available(mode)
    with pytest.raises(InputError, match="layout of the video"):
        resolve(mode)
