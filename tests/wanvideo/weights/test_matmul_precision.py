"""The process-wide switch of fp16 sums."""

import logging

import pytest
import torch
from comfyui_wanvideo.wanvideo.weights import matmul_precision
from comfyui_wanvideo.wanvideo.weights.matmul_precision import fp16_accumulation, fp16_accumulation_problem

has_switch = pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "allow_fp16_accumulation"), reason="needs PyTorch 2.7"
)


def switch():
    return torch.backends.cuda.matmul.allow_fp16_accumulation


@pytest.fixture(params=[False, True])
def before(request):
    original = switch()
    torch.backends.cuda.matmul.allow_fp16_accumulation = request.param
    yield request.param
    torch.backends.cuda.matmul.allow_fp16_accumulation = original


@has_switch
def test_it_is_on_inside(before):
    with fp16_accumulation():
        assert switch() is True


@has_switch
def test_it_is_as_before_afterwards(before):
    with fp16_accumulation():
        pass
    assert switch() is before


@has_switch
def test_it_is_as_before_after_an_exception(before):
    with pytest.raises(KeyError), fp16_accumulation():
        raise KeyError
    assert switch() is before


@has_switch
def test_where_the_switch_is_there_is_no_problem():
    assert fp16_accumulation_problem() is None


def test_a_torch_without_the_switch_is_told_in_a_sentence(monkeypatch, caplog):
    monkeypatch.setattr(matmul_precision, "SWITCH", "no_such_switch")
    with caplog.at_level(logging.WARNING), fp16_accumulation():
        pass
    assert "fp16_fast needs PyTorch 2.7 or newer" in caplog.text
