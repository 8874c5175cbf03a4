"""UltraViCo, against its rule written per pair of tokens."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention import ultravico
from comfyui_wanvideo.wanvideo.attention.backend import TokenLayout
from comfyui_wanvideo.wanvideo.attention.ultravico import (
    UltraVicoAttention,
    attend_flex,
    attend_rows,
    ultravico_function,
)

from .conftest import exact, inputs, relative_error

LAYOUT = TokenLayout((7, 3, 4), start=5)  # 84 tokens from 5 to 88
QUERIES, KEYS = 92, 97
TRAINED = 3


def by_definition(query, key, value, alpha):
    scores = torch.einsum("blnk,bmnk->bnlm", query.double(), key.double()) / 128**0.5
    for row in range(query.shape[1]):
        for column in range(key.shape[1]):
            if not (5 <= row < 89 and 5 <= column < 89):
                continue
            score = scores[:, :, row, column]
            if abs(row - column) > 12 * TRAINED / 2:
                scores[:, :, row, column] = torch.where(score > 0, score * alpha, score)
            if row < 5 + 12 and column >= 5 + 12 * TRAINED:
                scores[:, :, row, column] = -float("inf")
    return torch.einsum("bnlm,bmnk->blnk", scores.softmax(-1), value.double()).flatten(2)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.0])
def test_it_is_the_rule(alpha):
    q, k, v = inputs(QUERIES, KEYS, heads=2)
    found = attend_rows(3 * q, k, v, LAYOUT, alpha, TRAINED)
    assert relative_error(found, by_definition(3 * q, k, v, alpha)) <= 1e-5


def test_half_precision_is_computed_in_float32_and_cast_back():
    q, k, v = inputs(QUERIES, KEYS, torch.bfloat16, heads=2)
    found = attend_rows(q, k, v, LAYOUT, 0.5, TRAINED)
    assert found.dtype == torch.bfloat16
    assert relative_error(found, by_definition(q, k, v, 0.5)) <= 5e-3


def test_chunks_of_rows_are_the_whole(monkeypatch):
    q, k, v = inputs(QUERIES, KEYS, heads=2)
    whole = attend_rows(q, k, v, LAYOUT, 0.5, TRAINED)
    monkeypatch.setattr(ultravico, "SCORE_BYTES", 4 * KEYS * 2 * 9)  # 9 rows at a time
    assert torch.allclose(attend_rows(q, k, v, LAYOUT, 0.5, TRAINED), whole, atol=1e-6)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_follows_the_same_rule():
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = inputs(QUERIES, KEYS, heads=2)
    found = attend_flex(flex_attention)(3 * q, k, v, LAYOUT, 0.5, TRAINED)
    assert relative_error(found, by_definition(3 * q, k, v, 0.5)) <= 1e-5


def test_a_video_of_half_the_trained_length_is_left_alone():
    def never(*_):
        raise AssertionError

    q, k, v = inputs(40, 40)
    found = UltraVicoAttention(0.5, never, trained_frames=21)(q, k, v, TokenLayout((10, 2, 2)))
    assert relative_error(found, exact(q, k, v)) <= 1e-5


def test_far_frames_get_less_attention():
    """One value per frame: what a query in the middle reads from the last frame falls with alpha."""
    layout = TokenLayout((9, 2, 2))
    q = k = torch.ones(1, 36, 1, 128)
    v = torch.zeros(1, 36, 1, 128)
    v[:, 32:] = 1.0
    read = [
        UltraVicoAttention(a, attend_rows, TRAINED)(q, k, v, layout)[0, 16, 0].item() for a in (1, 0.9, 0)
    ]
    assert read[0] == pytest.approx(4 / 36, abs=1e-5)
    assert read[0] > read[1] > read[2]


def test_without_a_gpu_it_is_computed_by_chunks():
    function, name = ultravico_function(torch.device("cpu"), torch.bfloat16)
    assert function is attend_rows
    assert "PyTorch" in name


def test_one_compiled_graph_serves_every_size_and_alpha():
    """A graph per alpha would run into the limit of recompilations, and then compute every score at once."""
    from torch._dynamo.testing import CompileCounter
    from torch.nn.attention.flex_attention import flex_attention

    counter = CompileCounter()
    attend = attend_flex(torch.compile(flex_attention, backend=counter, dynamic=True))
    for frames, alpha in ((5, 0.5), (5, 0.9), (7, 0.9), (9, 0.1)):
        layout = TokenLayout((frames, 3, 4))
        attend(*inputs(frames * 12, frames * 12), layout, alpha, TRAINED)
    assert counter.frame_count == 1
