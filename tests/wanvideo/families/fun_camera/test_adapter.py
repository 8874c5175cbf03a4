"""The camera adapter of the 5B model against numbers of VideoX-Fun's own module."""

import json
from pathlib import Path

import torch
from comfyui_wanvideo.wanvideo.families.fun_camera.adapter import CameraAdapter

RECORDED = json.loads(Path(__file__).with_name("videox_fun_adapter.json").read_text(encoding="utf-8"))
WIDTH, STRIDE = 4, 16  # the other peers fold 8 pixels only
TOLERANCE = 1e-5


@torch.inference_mode()
def test_the_adapter_folds_16_pixels_as_videox_fun_does():
    adapter, generator = CameraAdapter(WIDTH, STRIDE), torch.Generator().manual_seed(0)
    for _, parameter in sorted(adapter.named_parameters()):
        scale = parameter[0].numel() ** -0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    rays = torch.randn(2, 24, 64, 96, generator=generator)
    expected = torch.tensor(RECORDED["output"]).movedim(1, -1)
    torch.testing.assert_close(adapter(rays), expected, atol=TOLERANCE, rtol=TOLERANCE)
