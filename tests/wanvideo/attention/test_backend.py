"""Attention by place in the video, bound to the layout of a forward."""

import torch
from comfyui_wanvideo.wanvideo.attention.backend import (
    LayoutAttention,
    TokenLayout,
    bind,
    is_installed,
    needs_whole_sequence,
)
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa

LAYOUT = TokenLayout((3, 4, 5), start=7)


class Recording(LayoutAttention):
    def __init__(self):
        self.calls = []

    def __call__(self, query, key, value, layout):
        self.calls.append((query, key, value, layout))
        return query


def test_the_layout_counts_tokens_per_frame_and_the_end():
    assert (LAYOUT.frame_tokens, LAYOUT.stop) == (20, 67)


def test_a_plain_function_stays_as_it_is():
    assert bind(sdpa, LAYOUT) is sdpa
    assert not needs_whole_sequence(sdpa)


def test_a_bound_one_is_called_with_the_layout_and_the_whole_sequence():
    q, k, v = torch.randn(3, 1, 2, 1, 128)
    recording = Recording()
    bound = bind(recording, LAYOUT)
    assert needs_whole_sequence(bound)
    assert bound(q, k, v) is q
    assert recording.calls == [(q, k, v, LAYOUT)]


def test_packages_are_found_without_importing_them():
    assert is_installed("json")
    assert not is_installed("no_such_package_here")
