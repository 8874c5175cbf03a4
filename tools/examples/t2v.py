"""Text to video with Wan 2.1 1.3B."""

from __future__ import annotations

import json
from pathlib import Path

from .graph import CONTROL_SUFFIX, Link, ModelFile, Node, Note, Workflow

TEXTS = json.loads((Path(__file__).parent / "texts.json").read_text(encoding="utf-8"))
REPOSITORY = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"

TRANSFORMER = "wan2.1_t2v_1.3B_fp16.safetensors"
TEXT_ENCODER = "umt5_xxl_fp16.safetensors"
VAE = "wan_2.1_vae.safetensors"

NOTE = f"""## Wan 2.1 text to video

Files:

- `models/diffusion_models`: [{TRANSFORMER}]({REPOSITORY}/diffusion_models/{TRANSFORMER})
- `models/text_encoders`: [{TEXT_ENCODER}]({REPOSITORY}/text_encoders/{TEXT_ENCODER})
- `models/vae`: [{VAE}]({REPOSITORY}/vae/{VAE})

Width and height are multiples of 16, frames are 4n+1; other values are rounded and said.
"""


def _model(name: str, directory: str) -> ModelFile:
    return ModelFile(name, f"{REPOSITORY}/{directory}/{name}", directory)


def _loaders() -> tuple[Node, ...]:
    return (
        Node(
            "model",
            "WanVideoModelLoader",
            widgets={
                "model": TRANSFORMER,
                "base_precision": "bf16",
                "quantization": "disabled",
                "load_device": "offload_device",
                "attention_mode": "sdpa",
                "rms_norm_function": "default",
            },
            outputs=(("model", "WANVIDEOMODEL"),),
            models=(_model(TRANSFORMER, "diffusion_models"),),
            column=400,
            row=0,
        ),
        Node(
            "text_encoder",
            "LoadWanVideoT5TextEncoder",
            widgets={
                "model_name": TEXT_ENCODER,
                "precision": "bf16",
                "load_device": "offload_device",
                "quantization": "disabled",
            },
            outputs=(("wan_t5_model", "WANTEXTENCODER"),),
            models=(_model(TEXT_ENCODER, "text_encoders"),),
            column=0,
            row=380,
        ),
        Node(
            "vae",
            "WanVideoVAELoader",
            widgets={"model_name": VAE, "precision": "bf16", "use_cpu_cache": False, "verbose": False},
            outputs=(("vae", "WANVAE"),),
            models=(_model(VAE, "vae"),),
            column=820,
            row=900,
        ),
    )


def _sampling() -> tuple[Node, ...]:
    return (
        Node(
            "text",
            "WanVideoTextEncode",
            inputs={"t5": (Link("text_encoder"), "WANTEXTENCODER")},
            widgets={
                "positive_prompt": TEXTS["positive"],
                "negative_prompt": TEXTS["negative"],
                "force_offload": True,
                "use_disk_cache": False,
                "device": "gpu",
            },
            outputs=(("text_embeds", "WANVIDEOTEXTEMBEDS"),),
            column=400,
            row=420,
            width=380,
        ),
        Node(
            "size",
            "WanVideoEmptyEmbeds",
            widgets={"width": 832, "height": 480, "num_frames": 81},
            outputs=(("image_embeds", "WANVIDIMAGE_EMBEDS"),),
            column=400,
            row=880,
        ),
        Node(
            "sampler",
            "WanVideoSampler",
            inputs={
                "model": (Link("model"), "WANVIDEOMODEL"),
                "image_embeds": (Link("size"), "WANVIDIMAGE_EMBEDS"),
                "text_embeds": (Link("text"), "WANVIDEOTEXTEMBEDS"),
            },
            widgets={
                "steps": 30,
                "cfg": 6.0,
                "shift": 8.0,
                "seed": 1057359483639287,
                "seed" + CONTROL_SUFFIX: "fixed",
                "force_offload": True,
                "scheduler": "unipc",
                "riflex_freq_index": 0,
                "denoise_strength": 1.0,
                "batched_cfg": False,
                "rope_function": "comfy",
                "start_step": 0,
                "end_step": -1,
                "add_noise_to_samples": False,
            },
            outputs=(("samples", "LATENT"), ("denoised_samples", "LATENT")),
            column=820,
            row=0,
        ),
    )


def _output() -> tuple[Node, ...]:
    return (
        Node(
            "decode",
            "WanVideoDecode",
            inputs={"vae": (Link("vae"), "WANVAE"), "samples": (Link("sampler"), "LATENT")},
            widgets={
                "enable_vae_tiling": False,
                "tile_x": 272,
                "tile_y": 272,
                "tile_stride_x": 144,
                "tile_stride_y": 128,
                "normalization": "default",
            },
            outputs=(("images", "IMAGE"),),
            column=1200,
            row=0,
        ),
        Node(
            "video",
            "CreateVideo",
            inputs={"images": (Link("decode"), "IMAGE")},
            widgets={"fps": 16.0, "bit_depth": 8},
            outputs=(("VIDEO", "VIDEO"),),
            column=1200,
            row=320,
        ),
        Node(
            "save",
            "SaveVideo",
            inputs={"video": (Link("video"), "VIDEO")},
            widgets={"filename_prefix": "video/WanVideo_t2v", "format": "mp4", "codec": "auto"},
            outputs=(("video", "VIDEO"),),
            column=1580,
            row=0,
            width=420,
        ),
    )


WORKFLOW = Workflow("t2v", (*_loaders(), *_sampling(), *_output()), (Note(NOTE, 0, 0),))
