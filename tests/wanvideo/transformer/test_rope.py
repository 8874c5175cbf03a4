"""Rotations against the definition, and what positions may be."""

import math

import pytest
import torch
from comfyui_wanvideo.wanvideo.transformer.chunking import PIECE_ROWS
from comfyui_wanvideo.wanvideo.transformer.rope import (
    ROPE_FUNCTIONS,
    RopeOptions,
    axis_frequencies,
    grid_positions,
    rope_table,
)
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTHS = {128: (44, 42, 42), 64: (24, 20, 20)}  # of heads of Wan and of Uni3C


def rotated(x, positions, **options):
    table = rope_table(positions, RopeOptions(**options), "cpu", head_width=x.shape[-1])
    return table.rotate(x.clone())


def by_definition(x, positions):
    """Every pair of channels turned by its angle, one by one, in float64."""
    result = x.double().clone()
    for token, position in enumerate(positions.tolist()):
        channel = 0
        for axis, width in enumerate(WIDTHS[x.shape[-1]]):
            for j in range(width // 2):
                angle = position[axis] * 10_000 ** (-2 * j / width)
                even, odd = x[:, token, :, channel].double(), x[:, token, :, channel + 1].double()
                result[:, token, :, channel] = even * math.cos(angle) - odd * math.sin(angle)
                result[:, token, :, channel + 1] = even * math.sin(angle) + odd * math.cos(angle)
                channel += 2
    return result


@pytest.mark.parametrize("head_width", WIDTHS)
def test_every_function_rotates_by_definition(head_width):
    positions = grid_positions((2, 3, 3))
    x = torch.randn(1, len(positions), 2, head_width)
    expected = by_definition(x, positions)
    for function in ROPE_FUNCTIONS:
        assert torch.allclose(rotated(x, positions, function=function).double(), expected, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(ROPE_FUNCTIONS))
def test_rows_of_the_table_rotate_like_the_whole_table(before, rows, function):
    positions = torch.rand(before + rows, 3) * 50
    x = torch.randn(1, before + rows, 1, 128)
    table = rope_table(positions, RopeOptions(function=function), "cpu")
    part = table.rows(before, before + rows).rotate(x[:, before:].clone())
    assert torch.equal(part, table.rotate(x)[:, before:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_tokens_than_a_piece_rotate_like_each_alone(dtype):
    positions = torch.rand(PIECE_ROWS + 3, 3) * 50
    x = torch.randn(1, PIECE_ROWS + 3, 1, 128).to(dtype)
    whole = rotated(x, positions)
    last = rotated(x[:, -5:], positions[-5:])
    assert torch.equal(whole[:, -5:], last)


def test_positions_may_be_negative_and_fractional():
    x = torch.randn(1, 1, 1, 128)
    there = rotated(x, torch.tensor([[-2.5, 1.25, -7.0]]))
    back = rotated(there, torch.tensor([[2.5, -1.25, 7.0]]))
    assert torch.allclose(back, x, atol=1e-5)


def test_only_position_differences_matter():
    q, k = torch.randn(1, 1, 1, 128), torch.randn(1, 1, 1, 128)
    scores = []
    for shift in (0.0, 300.0):
        a = rotated(q, torch.tensor([[shift, shift, shift]]))
        b = rotated(k, torch.tensor([[shift + 3, shift + 1, shift - 2]]))
        scores.append(float((a * b).sum()))
    assert abs(scores[0] - scores[1]) < 1e-3


def test_large_positions_stay_distinct():
    table = rope_table(torch.tensor([[0.0, 512.0, 0.0], [0.0, 513.0, 0.0]]), RopeOptions(), "cpu")
    assert not torch.allclose(table.turns[0], table.turns[1])


def test_riflex_slows_one_temporal_frequency_to_nine_tenths_of_a_period():
    frames = 21
    plain = rope_table(torch.tensor([[1.0, 0.0, 0.0]]), RopeOptions(), "cpu")
    slowed = rope_table(
        torch.tensor([[1.0, 0.0, 0.0]]), RopeOptions(riflex_index=6, riflex_frames=frames), "cpu"
    )
    changed = (plain.turns != slowed.turns)[0, :, 0].nonzero().flatten().tolist()
    assert changed == [5]
    assert math.isclose(math.acos(float(slowed.turns[0, 5, 0])), 0.9 * 2 * math.pi / frames, rel_tol=1e-5)
    assert math.isclose(float(axis_frequencies(44, 10_000)[5]), 0.1232847, rel_tol=1e-6)


def test_ntk_scale_changes_its_own_axis_only():
    positions = torch.tensor([[3.0, 3.0, 3.0]])
    plain = rope_table(positions, RopeOptions(), "cpu").turns[0]
    scaled = rope_table(positions, RopeOptions(ntk_scale=(1.0, 2.0, 1.0)), "cpu").turns[0]
    assert torch.equal(plain[:22], scaled[:22])
    assert torch.equal(plain[43:], scaled[43:])
    assert not torch.equal(plain[22:43], scaled[22:43])
