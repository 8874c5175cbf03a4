"""What a user of the shipped workflows has: model files under the real names, pictures and videos."""

import copy
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from comfyui_wanvideo.tools.examples.graph import ModelFile, Workflow
from comfyui_wanvideo.tools.examples.parts import CONTROL_VIDEO, EXAMPLE_PICTURE
from comfyui_wanvideo.tools.examples.uni3c import RENDER_VIDEO
from comfyui_wanvideo.tools.examples.upscale import VIDEO as SAVED_VIDEO
from comfyui_wanvideo.tools.tiny.make import write
from PIL import Image

SIDE, FRAMES, STEPS, HIGH_STEPS = 64, 9, 4, 1
LONG = 81  # frames of the shipped workflows, where a node names them by another word than num_frames

# A tiny random file of the same kind for every real one; there is none for models of other people.
STAND_INS: Mapping[str, str] = {
    "umt5_xxl_fp16.safetensors": "tiny_umt5_xxl_fp16.safetensors",
    "clip_vision_h.safetensors": "tiny_clip_vision_h_fp16.safetensors",
    "wan_2.1_vae.safetensors": "tiny_wan21_vae_fp32.safetensors",
    "wan2.2_vae.safetensors": "tiny_wan22_vae_fp32.safetensors",
    "wan2.1_t2v_1.3B_fp16.safetensors": "tiny_wan21_t2v_fp32.safetensors",
    "wan2.1_i2v_480p_14B_fp16.safetensors": "tiny_wan21_i2v_480_fp32.safetensors",
    "wan2.1_flf2v_720p_14B_fp16.safetensors": "tiny_wan21_flf2v_fp32.safetensors",
    "wan2.1_fun_inp_1.3B_bf16.safetensors": "tiny_wan21_fun_inp_fp32.safetensors",
    "wan2.1_fun_camera_v1.1_1.3B_bf16.safetensors": "tiny_wan21_fun_camera_fp32.safetensors",
    "wan2.2_ti2v_5B_fp16.safetensors": "tiny_wan22_ti2v_5b_fp32.safetensors",
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors": "tiny_wan22_t2v_high_fp32.safetensors",
    "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors": "tiny_wan22_t2v_low_fp32.safetensors",
    "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors": "tiny_wan22_i2v_high_fp32.safetensors",
    "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors": "tiny_wan22_i2v_low_fp32.safetensors",
    "wan2.2_fun_control_high_noise_14B_fp8_scaled.safetensors": "tiny_wan22_fun_control_fp32.safetensors",
    "wan2.2_fun_control_low_noise_14B_fp8_scaled.safetensors": "tiny_wan22_fun_control_fp32.safetensors",
    "Phantom-Wan-1_3B_fp16.safetensors": "tiny_wan21_phantom_fp32.safetensors",
    "Wan2_1-VACE_module_1_3B_bf16.safetensors": "tiny_vace_module_fp32.safetensors",
    "Wan21_Uni3C_controlnet_fp16.safetensors": "tiny_uni3c_controlnet_fp32.safetensors",
}


def provide_models(models: Path, workflows: Iterable[Workflow]) -> None:
    """Put tiny files below a models folder, under the names the workflows ask for."""
    wanted = {model for workflow in workflows for model in workflow.models if model.name in STAND_INS}
    missing = {STAND_INS[model.name] for model in wanted if not _stand_in(models, model).exists()}
    if missing:
        write(models, sorted(missing))
    for model in wanted:
        path = models / model.directory / model.name
        if not path.exists():
            path.hardlink_to(_stand_in(models, model))


def provide_inputs(base: Path) -> None:
    """Put the picture and the videos of the workflows into ComfyUI's input folder."""
    folder = base / "input"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_frame(0)).save(folder / EXAMPLE_PICTURE)
    for name in (CONTROL_VIDEO, RENDER_VIDEO, SAVED_VIDEO):
        write_video(folder / name)


def write_video(path: Path, *, frames: int = 12, rate: int = 16) -> None:
    """A video file in which a bright square moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(_frame(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_video(path: Path) -> tuple[np.ndarray, Fraction]:
    """All frames ``[F, H, W, 3]`` of a video file, and how many it shows a second."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.average_rate


def small(prompt: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A prompt with a small video and few steps."""
    result = copy.deepcopy({name: dict(node) for name, node in prompt.items()})
    for node in result.values():
        for name, value in node["inputs"].items():
            if not isinstance(value, list):
                node["inputs"][name] = smaller(name, value)
    return result


def smaller(name: str, value: Any) -> Any:
    """The value of one input in a small run."""
    if name in {"width", "height", "target_width", "target_height"}:
        return SIDE
    if name == "num_frames":
        return FRAMES
    if name == "length":
        return value - LONG + FRAMES
    if name == "steps":
        return min(value, STEPS)
    if name in {"start_step", "end_step"} and value > 0:
        return HIGH_STEPS
    return value


def _stand_in(models: Path, model: ModelFile) -> Path:
    return models / model.directory / STAND_INS[model.name]


def _frame(number: int) -> np.ndarray:
    frame = np.full((72, 96, 3), 40, dtype=np.uint8)
    frame[20:50, 10 + 3 * number : 40 + 3 * number] = (230, 120, 60)
    return frame
