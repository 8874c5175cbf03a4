"""Memory of expanded weights."""

import torch
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.weights.workspace import expanded_bytes

CONFIG = WanConfig(dim=128, ffn_dim=384, heads=1, layers=3, in_channels=16, out_channels=16)


def blocks(dtype):
    with torch.device("meta"):
        return WanTransformer(CONFIG).to(dtype).blocks


def test_weights_in_the_dtype_of_the_computation_need_nothing():
    assert expanded_bytes(blocks(torch.bfloat16), torch.bfloat16) == 0


def test_expanded_weights_count_as_many_as_are_at_the_same_time():
    """The two of the feed-forward; the parts of a block, and the blocks, compute one after the other."""
    assert expanded_bytes(blocks(torch.float8_e4m3fn), torch.bfloat16) == 2 * 128 * 384 * 2
