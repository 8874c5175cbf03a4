"""Row functions, eager: norms, gates and layers against their definitions in float64."""

import pytest
import torch
import torch.nn.functional as F
from comfyui_wanvideo.wanvideo.transformer import rows
from comfyui_wanvideo.wanvideo.transformer.chunking import PIECE_ROWS, RowBuffer, token_slices
from comfyui_wanvideo.wanvideo.transformer.norms import PreparedLayerNorm, PreparedRMSNorm
from comfyui_wanvideo.wanvideo.weights.formats import DenseLinear
from hypothesis import given
from hypothesis import strategies as st

WIDTH = 128
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3}  # one rounding of the result is 2e-3 in bfloat16
LENGTHS = [1, 3, PIECE_ROWS + 1]
DTYPES = list(TOLERANCE)


def relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def norm():
    return PreparedLayerNorm(torch.randn(WIDTH), torch.randn(WIDTH), 1e-6)


def linear(rows_in, rows_out, dtype):
    return DenseLinear(
        (torch.randn(rows_out, rows_in) / rows_in**0.5).to(dtype), torch.randn(rows_out).to(dtype)
    )


def wide(layer):
    return DenseLinear(layer.weight.double(), layer.bias.double())


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_with_weight_and_bias(length, dtype):
    x, prepared = torch.randn(length, WIDTH).to(dtype), norm()
    expected = F.layer_norm(x.double(), (WIDTH,), prepared.weight.double(), prepared.bias.double(), 1e-6)
    assert relative(prepared(x), expected) <= TOLERANCE[dtype]


def test_layer_norm_of_bfloat16_gives_float32_where_asked():
    x, prepared = torch.randn(PIECE_ROWS + 1, WIDTH).bfloat16(), norm()
    assert torch.equal(prepared(x, torch.float32), prepared(x.float()))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", ["default", "pytorch"])
def test_rms_norm(length, dtype, function):
    x, weight = torch.randn(length, WIDTH).to(dtype), torch.randn(WIDTH).to(dtype)
    values = x.double()
    expected = values / (values.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    assert relative(PreparedRMSNorm(weight, 1e-6, function)(x), expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_gated", [False, True])
def test_projected_rows_are_added_with_their_gate(length, dtype, is_gated):
    x, attended = torch.randn(2, length, WIDTH).to(dtype)
    layer, gate = linear(WIDTH, WIDTH, dtype), torch.randn(WIDTH) if is_gated else None
    expected = x.double() + wide(layer)(attended.double()) * (1 if gate is None else gate.double())
    rows.add_projected(x, attended, layer, gate)
    assert relative(x, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_feed_forward_is_added_with_its_gate(length, dtype):
    x, prepared, gate = torch.randn(length, WIDTH).to(dtype), norm(), torch.randn(WIDTH)
    first, second = linear(WIDTH, 3 * WIDTH, dtype), linear(3 * WIDTH, WIDTH, dtype)
    normed = F.layer_norm(x.double(), (WIDTH,), prepared.weight.double(), prepared.bias.double(), 1e-6)
    hidden = F.gelu(wide(first)(normed), approximate="tanh")
    expected = x.double() + wide(second)(hidden) * gate.double()
    rows.feed_forward(x, prepared, first, second, gate)
    assert relative(x, expected) <= TOLERANCE[dtype]


@given(st.integers(0, 50), st.integers(1, 60))
def test_slices_hold_every_token_once_and_in_order(length, size):
    parts = [list(range(length))[part] for part in token_slices(length, size)]
    assert [token for part in parts for token in part] == list(range(length))


def test_rows_that_are_the_whole_buffer_are_not_copied():
    buffer, values = RowBuffer(1, 3), torch.randn(3, 4)
    buffer.put(0, 0, values)
    assert buffer.tensor.data_ptr() == values.data_ptr()


def test_a_buffer_holds_each_videos_rows_at_their_place():
    buffer, values = RowBuffer(2, 3), torch.randn(2, 3, 4)
    for member, start, stop in ((0, 2, 3), (1, 0, 3), (0, 0, 2)):
        buffer.put(member, start, values[member, start:stop])
    assert torch.equal(buffer.tensor, values)
