"""Attention by place in the video, in a forward of a transformer."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.attention.backend import LayoutAttention, TokenLayout
from comfyui_wanvideo.wanvideo.attention.block_sparse import BlockSparseAttention, attend_block_rows
from comfyui_wanvideo.wanvideo.attention.radial import RadialAttention
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.attention.ultravico import UltraVicoAttention, attend_rows

from ..transformer.conftest import Inputs, forward, random_transformer

MODES = {
    "radial": RadialAttention(BlockSparseAttention("blocks", attend_block_rows), 0.2, 64),
    "ultravico": UltraVicoAttention(0.2, attend_rows, trained_frames=3),
}


@pytest.fixture(scope="module")
def model():
    return random_transformer()


@pytest.fixture(scope="module")
def long_video():
    generator = torch.Generator().manual_seed(3)
    return Inputs(
        latent=torch.randn(1, 16, 9, 6, 10, generator=generator),
        timestep=400.0,
        text=torch.randn(5, 64, generator=generator),
    )


class Recording(LayoutAttention):
    def __init__(self):
        self.calls = []

    def __call__(self, query, key, value, layout):
        self.calls.append((query.shape[1], key.shape[1], layout))
        return sdpa(query, key, value)


@pytest.mark.parametrize("chunks", [1, 4])
def test_only_self_attention_is_given_the_layout_and_the_whole_video(model, long_video, chunks):
    recording = Recording()
    forward(model, long_video, attention_for=lambda _step, _block: recording, row_chunks=chunks)
    assert recording.calls == [(135, 135, TokenLayout((9, 3, 5)))] * 2


def test_chunks_of_other_rows_change_nothing(model, long_video):
    def run(chunks):
        return forward(model, long_video, attention_for=lambda *_: MODES["radial"], row_chunks=chunks)

    assert torch.allclose(run(4), run(1), atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_changes_the_blocks_it_is_chosen_for_only(model, long_video, mode):
    plain = forward(model, long_video)
    nowhere = forward(
        model, long_video, attention_for=lambda _step, block: MODES[mode] if block > 9 else None
    )
    last = forward(model, long_video, attention_for=lambda _step, block: MODES[mode] if block == 1 else None)
    assert torch.equal(nowhere, plain)
    assert not torch.allclose(last, plain, atol=1e-4)
