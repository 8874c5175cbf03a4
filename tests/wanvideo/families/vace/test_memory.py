"""The working memory that VACE states against what is alive during a forward of real width.

Tensors on the meta device have sizes and no values, so the forward takes no memory.
"""

import pytest
import torch
from comfyui_wanvideo.benchmarks.measure import peak_bytes
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed
from comfyui_wanvideo.wanvideo.families.vace.inputs import VACE, VaceContext, VaceInput
from comfyui_wanvideo.wanvideo.families.vace.stream import VaceBlock, VaceStream
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.memory import activation_bytes
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.transformer.patches import PatchEmbedding
from comfyui_wanvideo.wanvideo.weights.dtype_policy import role_of

CONFIG = WanConfig(5120, 13824, 40, 2, 16, 16)
FRAMES, ROWS, COLUMNS = 9, 60, 104  # 832x480
TOKENS = FRAMES * ROWS * COLUMNS // 4


def flash(query, key, value):
    """Attention that holds nothing but its result."""
    del key, value
    return torch.empty_like(query).flatten(2)


def build(dtype):
    with torch.device("meta"):
        model = WanTransformer(CONFIG)
        embedding, block = PatchEmbedding(96, CONFIG.dim), VaceBlock(CONFIG, is_first=True)
    model.add_module("vace_patch_embedding", embedding)
    model.add_module("vace_blocks", torch.nn.ModuleList([block]))
    model.points.streams[VACE] = VaceStream(embedding, [block], (0,))
    for name, parameter in model.named_parameters():
        if role_of(model, name) != "fp32":
            parameter.data = parameter.data.to(dtype)
    return model


def context():
    def latent(channels):
        return Timed(torch.empty(1, channels, FRAMES, ROWS, COLUMNS, device="meta"))

    return VaceContext(latent(16), latent(16), latent(64))


@pytest.mark.parametrize("contexts", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "row_chunks"), [(torch.bfloat16, 1), (torch.bfloat16, 4), (torch.float32, 4)]
)
def test_the_plan_is_at_most_a_quarter_above_the_peak_and_never_below(contexts, dtype, row_chunks):
    model = build(dtype)
    latent = torch.empty(1, 16, FRAMES, ROWS, COLUMNS, device="meta")
    text = torch.empty(512, CONFIG.text_width, device="meta")
    run = RunState(RunOptions(attention=flash, row_chunks=row_chunks))
    stated = VaceInput((context(),) * contexts).working_bytes(TOKENS, CONFIG, dtype.itemsize)

    def forward():
        inputs = {VACE: VaceInput(tuple(context() for _ in range(contexts)))}
        geometry = VideoGeometry(8 * COLUMNS, 8 * ROWS, 4 * FRAMES - 3)
        return model(latent, (500.0,), Conditioning(geometry, (text,), inputs), run)

    peak = peak_bytes(forward, [latent, text, *model.parameters()])[1]
    planned = activation_bytes(CONFIG, TOKENS, dtype, row_chunks=row_chunks) + stated
    assert peak <= planned <= 1.25 * peak
