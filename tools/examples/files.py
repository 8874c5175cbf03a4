"""The model files the workflows name, and where they are published."""

from __future__ import annotations

from .graph import ModelFile

HUGGING_FACE = "https://huggingface.co"
WAN21 = f"{HUGGING_FACE}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
WAN22 = f"{HUGGING_FACE}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
SEEDVR2 = f"{HUGGING_FACE}/Comfy-Org/SeedVR2/resolve/main"
INTERPOLATION = f"{HUGGING_FACE}/Comfy-Org/frame_interpolation/resolve/main"
KIJAI = f"{HUGGING_FACE}/Kijai/WanVideo_comfy/resolve/main"


def _file(repository: str, directory: str, name: str) -> ModelFile:
    """A file of a repository whose folders are called as ComfyUI's are."""
    return ModelFile(name, f"{repository}/{directory}/{name}", directory)


def _kijai(directory: str, name: str) -> ModelFile:
    return ModelFile(name, f"{KIJAI}/{name}", directory)


def _experts(name: str) -> tuple[ModelFile, ModelFile]:
    """The files of the high-noise and the low-noise model; ``{}`` in the name is replaced."""
    return (
        _file(WAN22, "diffusion_models", name.format("high_noise")),
        _file(WAN22, "diffusion_models", name.format("low_noise")),
    )


TEXT_ENCODER = _file(WAN21, "text_encoders", "umt5_xxl_fp16.safetensors")
CLIP_VISION = _file(WAN21, "clip_vision", "clip_vision_h.safetensors")
VAE_21 = _file(WAN21, "vae", "wan_2.1_vae.safetensors")
VAE_22 = _file(WAN22, "vae", "wan2.2_vae.safetensors")

T2V_1_3B = _file(WAN21, "diffusion_models", "wan2.1_t2v_1.3B_fp16.safetensors")
I2V_480P = _file(WAN21, "diffusion_models", "wan2.1_i2v_480p_14B_fp16.safetensors")
FLF2V_720P = _file(WAN21, "diffusion_models", "wan2.1_flf2v_720p_14B_fp16.safetensors")
FUN_INP = _file(WAN21, "diffusion_models", "wan2.1_fun_inp_1.3B_bf16.safetensors")
FUN_CAMERA = _file(WAN21, "diffusion_models", "wan2.1_fun_camera_v1.1_1.3B_bf16.safetensors")
TI2V_5B = _file(WAN22, "diffusion_models", "wan2.2_ti2v_5B_fp16.safetensors")
T2V_A14B = _experts("wan2.2_t2v_{}_14B_fp8_scaled.safetensors")
I2V_A14B = _experts("wan2.2_i2v_{}_14B_fp8_scaled.safetensors")
FUN_CONTROL_A14B = _experts("wan2.2_fun_control_{}_14B_fp8_scaled.safetensors")
PHANTOM = _kijai("diffusion_models", "Phantom-Wan-1_3B_fp16.safetensors")
VACE_MODULE = _kijai("diffusion_models", "Wan2_1-VACE_module_1_3B_bf16.safetensors")
UNI3C = _kijai("controlnet", "Wan21_Uni3C_controlnet_fp16.safetensors")

SEEDVR2_MODEL = _file(SEEDVR2, "diffusion_models", "seedvr2_3b_int8_convrot.safetensors")
SEEDVR2_VAE = _file(SEEDVR2, "vae", "seedvr2_ema_vae_fp16.safetensors")
FILM = _file(INTERPOLATION, "frame_interpolation", "film_net_fp16.safetensors")
