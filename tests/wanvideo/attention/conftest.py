"""Stand-ins for attention libraries, with their argument names, layouts and demands."""

import importlib.machinery
import sys
import types
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from comfyui_wanvideo.wanvideo.attention import block_sparse, registry, self_test
from comfyui_wanvideo.wanvideo.attention.backend import supports_everything

HALF = (torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def _fresh_measurements():
    self_test._measured.cache_clear()
    block_sparse._chosen.cache_clear()
    yield
    self_test._measured.cache_clear()
    block_sparse._chosen.cache_clear()


@pytest.fixture
def library(monkeypatch):
    """Puts a module with the given functions in place of a package."""

    def install(package, **functions):
        module = types.ModuleType(package)
        module.__spec__ = importlib.machinery.ModuleSpec(package, None)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, package, module)

    return install


@pytest.fixture
def on_any_device(monkeypatch):
    """Lets backends that ask for a GPU run here."""

    def allow(*names):
        for name in names:
            backend = replace(registry.BACKENDS[name], supports=supports_everything)
            monkeypatch.setitem(registry.BACKENDS, name, backend)

    return allow


def exact(query, key, value):
    """``[B, L, N, K]`` -> ``[B, L, N * K]``, by the definition, in float64."""
    query, key, value = (x.transpose(1, 2).double() for x in (query, key, value))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def relative_error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def rows_before_heads(query, key, value):
    """What flash and sage do with ``[B, L, N, K]``."""
    assert query.dtype in HALF
    assert query.dtype == key.dtype == value.dtype
    assert all(x.stride(-1) == 1 for x in (query, key, value))
    attended = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
    return attended.transpose(1, 2)


def inputs(queries, keys, dtype=torch.float32, *, batch=1, heads=3):
    """Queries, keys and values."""
    query, key, value = (torch.randn(batch, length, heads, 128).to(dtype) for length in (queries, keys, keys))
    return query, key, value
