"""Graphs in API form that the tests run and vary."""

from typing import Any

Prompt = dict[str, dict[str, Any]]

MODEL = "tiny_wan21_t2v_fp32.safetensors"
TEXT_ENCODER = "tiny_umt5_xxl_fp16.safetensors"
VAE = "tiny_wan21_vae_fp32.safetensors"


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """One node; a link is ``["name", output]``."""
    return {"class_type": kind, "inputs": inputs}


def text_to_latent(
    *,
    model: str = MODEL,
    text_encoder: str = TEXT_ENCODER,
    size: tuple[int, int, int] = (80, 64, 5),
    positive: str = "a red fox in the snow",
    loader: dict[str, Any] | None = None,
    model_link: list[Any] | None = None,
    **sampler: Any,
) -> Prompt:
    """Text to a latent with the tiny models in fp32; ``sampler`` overrides inputs of the sampler."""
    width, height, frames = size
    inputs = {
        "model": model_link or ["model", 0],
        "image_embeds": ["size", 0],
        "text_embeds": ["text", 0],
        "steps": 3,
        "cfg": 4.0,
        "shift": 5.0,
        "seed": 11,
        "force_offload": True,
        "scheduler": "euler",
        "riflex_freq_index": 0,
        **sampler,
    }
    return {
        "model": node(
            "WanVideoModelLoader",
            **{
                "model": model,
                "base_precision": "fp32",
                "quantization": "disabled",
                "load_device": "offload_device",
                **(loader or {}),
            },
        ),
        "t5": node("LoadWanVideoT5TextEncoder", model_name=text_encoder, precision="fp32"),
        "text": node("WanVideoTextEncode", positive_prompt=positive, negative_prompt="blurry", t5=["t5", 0]),
        "size": node("WanVideoEmptyEmbeds", width=width, height=height, num_frames=frames),
        "sampler": node("WanVideoSampler", **inputs),
    }


def vae_loader(name: str = VAE) -> dict[str, Any]:
    """The VAE in fp32."""
    return node("WanVideoVAELoader", model_name=name, precision="fp32")


def decode(vae: list[Any], samples: list[Any], **inputs: Any) -> dict[str, Any]:
    """Our decode node."""
    tiling = {
        "enable_vae_tiling": False,
        "tile_x": 272,
        "tile_y": 272,
        "tile_stride_x": 144,
        "tile_stride_y": 128,
    }
    return node("WanVideoDecode", vae=vae, samples=samples, **{**tiling, **inputs})


def text_to_images(**inputs: Any) -> Prompt:
    """Text to pictures."""
    return {
        **text_to_latent(**inputs),
        "vae": vae_loader(),
        "decode": decode(["vae", 0], ["sampler", 0]),
    }
