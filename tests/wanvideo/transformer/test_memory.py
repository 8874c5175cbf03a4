"""The estimate of activation memory against what is alive during a forward, at the sizes of real models.

Tensors on the meta device have sizes and no values, so a forward of the largest model takes no memory.
"""

from dataclasses import dataclass

import pytest
import torch
from comfyui_wanvideo.benchmarks.measure import peak_bytes
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.memory import activation_bytes, row_chunks_for
from comfyui_wanvideo.wanvideo.transformer.model import WanTransformer
from comfyui_wanvideo.wanvideo.transformer.rope import RopeOptions
from comfyui_wanvideo.wanvideo.weights.dtype_policy import role_of
from hypothesis import given
from hypothesis import strategies as st

SIZES = {"14B": (5120, 13824), "5B": (3072, 14336), "1.3B": (1536, 8960)}
FRAMES = 9
FRAME_TOKENS = 1560  # 832x480
TOKENS = FRAMES * FRAME_TOKENS
TIMESTEPS = {
    "one": ((500.0,), None),
    "first frame clean": ((0.0, *[500.0] * (FRAMES - 1)), TOKENS - FRAME_TOKENS),
    "per frame": (tuple(100.0 * frame for frame in range(FRAMES)), FRAME_TOKENS),
}


def flash(query, key, value):
    """Attention that holds nothing but its result."""
    return torch.empty_like(query).flatten(2)


@dataclass(frozen=True)
class Case:
    """One forward."""

    size: str = "14B"
    dtype: torch.dtype = torch.bfloat16
    row_chunks: int = 1
    rope_function: str = "comfy"
    timesteps: str = "one"
    batch: int = 1

    @property
    def config(self):
        dim, ffn_dim = SIZES[self.size]
        return WanConfig(dim, ffn_dim, dim // 128, 1, 16, 16)

    def peak(self):
        with torch.device("meta"):
            model = WanTransformer(self.config)
            latent = torch.empty(self.batch, 16, FRAMES, 60, 104)
            text = torch.empty(512, self.config.text_width)
        for name, parameter in model.named_parameters():
            if role_of(model, name) != "fp32":
                parameter.data = parameter.data.to(self.dtype)
        conditioning = Conditioning(VideoGeometry(832, 480, 4 * (FRAMES - 1) + 1), text=(text,))
        rope = RopeOptions(function=self.rope_function)
        run = RunState(RunOptions(attention=flash, row_chunks=self.row_chunks, rope=rope))
        timesteps = TIMESTEPS[self.timesteps][0]

        def forward():
            model.prepare_run(run, timesteps, [conditioning])
            return model(latent, timesteps, conditioning, run)

        return peak_bytes(forward, [latent, text, *model.parameters()])[1]

    def estimate(self):
        return activation_bytes(
            self.config,
            TOKENS,
            self.dtype,
            row_chunks=self.row_chunks,
            batch=self.batch,
            rope_function=self.rope_function,
            longest_run=TIMESTEPS[self.timesteps][1],
        )


CASES = [
    *(
        Case(size, dtype, n)
        for size in SIZES
        for dtype in (torch.bfloat16, torch.float32)
        for n in (1, 4, 16)
    ),
    *(Case("1.3B", dtype, n, "default") for dtype in (torch.bfloat16, torch.float32) for n in (1, 8)),
    *(Case("1.3B", timesteps=timesteps, row_chunks=n) for timesteps in list(TIMESTEPS)[1:] for n in (1, 8)),
    *(Case("1.3B", torch.float32, n, timesteps="per frame") for n in (1, 8)),
    *(Case("1.3B", batch=2, row_chunks=n) for n in (1, 8)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_estimate_is_at_most_a_quarter_above_the_peak_and_never_below(case):
    peak = case.peak()
    assert peak <= case.estimate() <= 1.25 * peak


def test_sixteen_row_chunks_need_less_than_3_7_tensors_of_tokens_and_width_in_bfloat16():
    case = Case("14B", row_chunks=16)
    assert case.peak() <= 3.7 * TOKENS * case.config.dim * 2


@given(st.integers(1, 200_000), st.sampled_from(["comfy", "comfy_chunked"]))
def test_a_chunk_has_about_four_thousand_rows_at_most(tokens, rope_function):
    assert -(-tokens // row_chunks_for(tokens, rope_function=rope_function)) <= 4096


def test_small_videos_are_not_split():
    assert row_chunks_for(1560) == 1


@pytest.mark.parametrize(("tokens", "chunks"), [(400, 1), (1560, 3), (8192, 16), (32_760, 16), (75_600, 19)])
def test_comfy_chunked_splits_into_sixteen_where_the_tokens_suffice(tokens, chunks):
    assert row_chunks_for(tokens, rope_function="comfy_chunked") == chunks
