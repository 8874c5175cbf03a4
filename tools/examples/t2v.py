"""Text to video with Wan 2.1 1.3B, and with the two models of Wan 2.2."""

from __future__ import annotations

from . import files, parts
from .graph import Workflow

PROMPT = (
    "A red fox trots through fresh snow between birch trees, low winter sun behind it, breath steaming, "
    "shallow depth of field, cinematic."
)
SIZE_TEXT = "Width and height are multiples of 16, frames are 4n+1; other values are rounded and said."

WAN21 = Workflow(
    "t2v",
    "Wan 2.1 text to video",
    SIZE_TEXT,
    columns=(
        (parts.text_encoder(),),
        (parts.model(files.T2V_1_3B), parts.prompts(PROMPT), parts.size(832, 480, 81)),
        (parts.sampler("size", steps=30, cfg=6.0, shift=8.0), parts.vae()),
        (parts.decoded(),),
        parts.video_file("t2v", frames_per_second=16.0),
    ),
)

WAN22 = Workflow(
    "t2v_wan22",
    "Wan 2.2 text to video",
    f"""
One model is for high noise, one for low noise. With 40 steps and shift 12 the noise falls below the
boundary of 0.875 after 26 steps: **end_step** of the first sampler is **start_step** of the second. With
other steps or another shift it falls elsewhere.

{SIZE_TEXT}
""",
    columns=(
        (parts.text_encoder(), parts.vae()),
        (*parts.expert_models(files.T2V_A14B), parts.prompts(PROMPT), parts.size(832, 480, 81)),
        *parts.expert_samplers("size", steps=40, high_steps=26, cfg=(4.0, 3.0), shift=12.0),
        (parts.decoded(),),
        parts.video_file("t2v_wan22", frames_per_second=16.0),
    ),
)
