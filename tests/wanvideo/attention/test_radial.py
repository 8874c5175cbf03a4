"""Radial attention: which blocks see which, against the rule applied to every pair of tokens."""

import math
from itertools import pairwise

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.backend import TokenLayout
from comfyui_wanvideo.wanvideo.attention.block_sparse import BlockSparseAttention, attend_block_rows
from comfyui_wanvideo.wanvideo.attention.radial import RadialAttention, RadialSettings, radial_mask

from .conftest import exact, inputs, relative_error

DECAY = 0.2


def sees(query, key, layout, block_size, decay_factor=DECAY):
    """Whether the token ``query`` sees the token ``key``, by the definition."""
    frame_tokens = layout.frame_tokens
    if not all(layout.start <= token < layout.stop for token in (query, key)):
        return True
    (frame, place), (key_frame, key_place) = (
        divmod(token - layout.start, frame_tokens) for token in (query, key)
    )
    distance, apart = abs(frame - key_frame), abs(place - key_place)
    if key_frame == 0 or distance == 0:
        return True
    if distance == 1:
        return apart <= frame_tokens // 2
    span = 2 ** len(bin(frame_tokens)[2:]) / 2 ** len(bin(distance)[2:])
    if span < block_size and distance % math.floor(block_size / span):
        return False
    return apart <= max(span * decay_factor, block_size)


def brute_force(layout, queries, keys, block_size, decay_factor=DECAY):
    def block(first_row, first_column):
        rows = range(first_row, min(first_row + block_size, queries))
        columns = range(first_column, min(first_column + block_size, keys))
        inside = all(layout.start <= x < layout.stop for x in (rows[0], rows[-1], columns[0], columns[-1]))
        if not inside or first_row == first_column:
            return True
        seen_by = [sum(sees(q, k, layout, block_size, decay_factor) for q in rows) for k in columns]
        seen = sum(count > 0 for count in seen_by)
        return seen > 0 and 5 * sum(3 * count > len(rows) for count in seen_by) > 3 * seen

    return torch.tensor(
        [
            [block(row, column) for column in range(0, keys, block_size)]
            for row in range(0, queries, block_size)
        ]
    )


@pytest.mark.parametrize(
    ("layout", "queries", "keys"),
    [
        (TokenLayout((9, 8, 8)), 576, 576),
        (TokenLayout((9, 7, 11)), 693, 693),
        (TokenLayout((6, 5, 5)), 150, 150),
        (TokenLayout((5, 9, 13), start=10), 640, 700),
        (TokenLayout((1, 9, 13)), 117, 117),
    ],
    ids=["whole blocks", "odd sizes", "frames smaller than a block", "other segments and keys", "one frame"],
)
@pytest.mark.parametrize("block_size", [16, 32])
def test_the_mask_is_that_of_the_definition(layout, queries, keys, block_size):
    found = radial_mask(layout, queries, keys, decay_factor=DECAY, block_size=block_size)
    assert torch.equal(found, brute_force(layout, queries, keys, block_size))


def test_a_wider_decay_factor_sees_more():
    layout = TokenLayout((9, 16, 16))
    masks = [radial_mask(layout, 2304, 2304, decay_factor=d, block_size=16) for d in (0.1, 0.5, 1.0)]
    kept = [mask.sum().item() for mask in masks]
    assert kept == sorted(set(kept))
    assert all((narrow & ~wide).sum() == 0 for narrow, wide in pairwise(masks))


def test_a_480p_video_leaves_two_thirds_out():
    tokens = 21 * 30 * 52
    mask = radial_mask(TokenLayout((21, 30, 52)), tokens, tokens, decay_factor=0.2, block_size=128)
    assert 0.25 < mask.float().mean() < 0.35


def test_density_falls_as_the_video_gets_longer():
    def density(frames):
        tokens = frames * 256
        mask = radial_mask(TokenLayout((frames, 16, 16)), tokens, tokens, decay_factor=0.2, block_size=64)
        return mask.float().mean().item()

    assert density(64) < density(32) < density(16)


def test_attention_sees_exactly_the_blocks_of_the_mask():
    layout = TokenLayout((7, 6, 9), start=3)
    q, k, v = inputs(400, 410)
    mask = radial_mask(layout, 400, 410, decay_factor=DECAY, block_size=64)
    seen = mask.repeat_interleave(64, 0)[:400].repeat_interleave(64, 1)[:, :410]
    assert not seen.all()
    scores = torch.einsum("blnk,bmnk->bnlm", q, k) / 128**0.5
    weights = scores.masked_fill(~seen, -float("inf")).softmax(-1)
    expected = torch.einsum("bnlm,bmnk->blnk", weights, v).flatten(2)
    radial = RadialAttention(BlockSparseAttention("blocks", attend_block_rows), DECAY, 64)
    assert relative_error(radial(q, k, v, layout), expected) <= 1e-5


def test_a_short_video_sees_everything():
    q, k, v = inputs(40, 40)
    radial = RadialAttention(BlockSparseAttention("blocks", attend_block_rows))
    assert relative_error(radial(q, k, v, TokenLayout((2, 4, 5))), exact(q, k, v)) <= 1e-5


def test_first_steps_and_chosen_blocks_are_dense():
    settings = RadialSettings(dense_blocks=frozenset({0, 7}), dense_steps=2)
    dense = {(step, block) for step in range(4) for block in range(9) if settings.is_dense(step, block)}
    assert dense == {(s, b) for s in range(4) for b in range(9) if s < 2 or b in (0, 7)}
