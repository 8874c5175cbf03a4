"""Small random text encoder files."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill, specs, spiece
from comfyui_wanvideo.wanvideo.encoders.text_encoder import TextEncoder, load_umt5
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from safetensors.torch import save_file
from torch import Tensor

# Neither head width 64 nor an attention as wide as the stream: both must come from the shapes.
SIZE = specs.UMT5Size(vocabulary=256, width=64, attention_width=96, heads=4, feed_forward=128, layers=3)

SaveUMT5 = Callable[..., Checkpoint]
PROMPTS = ("a red fox jumps over the snow, cinematic light", "low quality, blurry, static")


def encode(encoder: TextEncoder, prompts=PROMPTS) -> Tensor:
    """All rows of some prompts, one after another."""
    return torch.cat(encoder.encode(prompts, device="cpu"))


@pytest.fixture(scope="session")
def spiece_model() -> bytes:
    return spiece.train()


@pytest.fixture(scope="session")
def umt5_size() -> specs.UMT5Size:
    return SIZE


@pytest.fixture(scope="session")
def umt5_weights() -> dict[str, Tensor]:
    """Official names, float32."""
    return fill.tensors(specs.umt5(SIZE), file="umt5", seed=1)


@pytest.fixture
def save_umt5(tmp_path: Path, spiece_model: bytes) -> SaveUMT5:
    """Write official-name weights in either key style and open the file."""

    def save(
        weights: Mapping[str, Tensor],
        name: str = "encoder.safetensors",
        *,
        style: str = "official",
        with_tokenizer: bool = True,
        extra: Mapping[str, Tensor] | None = None,
    ) -> Checkpoint:
        rename = specs.umt5_hf_name if style == "hf" else str
        tensors = {rename(key): tensor.contiguous() for key, tensor in weights.items()}
        if with_tokenizer:
            tensors["spiece_model"] = spiece.as_tensor(spiece_model)
        save_file({**tensors, **(extra or {})}, tmp_path / name)
        return Checkpoint.open(tmp_path / name)

    return save


@pytest.fixture
def encoder(save_umt5, umt5_weights) -> TextEncoder:
    return load_umt5(save_umt5(umt5_weights, "fp32.safetensors"), dtype=torch.float32)


@pytest.fixture
def exact(encoder) -> Tensor:
    return encode(encoder)


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    def measure(found: Tensor, expected: Tensor) -> float:
        return ((found.double() - expected.double()).norm() / expected.double().norm()).item()

    return measure


@pytest.fixture(scope="session")
def reference_umt5(umt5_weights: dict[str, Tensor]) -> Callable[..., list[Tensor]]:
    """transformers' UMT5EncoderModel on the same weights, padded to a fixed length as Wan's code does."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=SIZE.vocabulary,
        d_model=SIZE.width,
        d_kv=SIZE.attention_width // SIZE.heads,
        num_heads=SIZE.heads,
        d_ff=SIZE.feed_forward,
        num_layers=SIZE.layers,
        feed_forward_proj="gated-gelu",
    )

    @torch.no_grad()
    def encode(
        prompts: list[list[int]],
        *,
        dtype: torch.dtype = torch.float32,
        weights: Mapping[str, Tensor] = umt5_weights,
        padded_to: int = 320,
    ) -> list[Tensor]:
        model = UMT5EncoderModel(config).eval().type(dtype)
        state = {specs.umt5_hf_name(key): tensor for key, tensor in weights.items()}
        model.load_state_dict({**state, "encoder.embed_tokens.weight": state["shared.weight"]})
        ids = torch.zeros(len(prompts), padded_to, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            mask[row, : len(prompt)] = 1
        hidden = model(ids, attention_mask=mask).last_hidden_state
        return [hidden[row, : len(prompt)] for row, prompt in enumerate(prompts)]

    return encode
