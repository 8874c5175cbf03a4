"""A forward touches tensors of its own device only: on the meta device, where mixing two is an error."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.transformer.rope import ROPE_FUNCTIONS, RopeOptions
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint

pytest.importorskip("comfy_kitchen")

META = torch.device("meta")
FILES = [
    file
    for file in make.FILES
    if file.folder == "diffusion_models" and file.group in (make.DEMO, make.FORMATS, make.GGUF)
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_forward_in_any_storage_format(file, tmp_path):
    path = tmp_path / file.name
    file.write(path, 0)
    model = load_transformer(Checkpoint.open(path), compute_dtype=torch.bfloat16).transformer.to(META)
    conditioning = Conditioning(VideoGeometry(64, 48, 5), text=(torch.randn(7, 256),))
    for function in ROPE_FUNCTIONS:
        run = RunState(RunOptions(attention=sdpa, row_chunks=3, rope=RopeOptions(function=function)))
        with torch.inference_mode():
            model.prepare_run(run, [637.25], [conditioning])
            velocity = model(torch.empty(1, 16, 2, 6, 8, device=META), [637.25], conditioning, run)
        assert velocity.device == META
        assert velocity.shape == (1, 16, 2, 6, 8)
