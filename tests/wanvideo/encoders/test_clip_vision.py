"""The CLIP image encoder against transformers', in every key layout and precision."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill
from comfyui_wanvideo.tools.tiny.vision import VisionSize, to_hf, vision
from comfyui_wanvideo.wanvideo.encoders.clip_vision import ClipVisionEncoder, load_clip_vision
from comfyui_wanvideo.wanvideo.encoders.clip_vision_pixels import pixels_for_clip
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from safetensors.torch import save_file
from torch import Tensor

SIZE = VisionSize(width=160, layers=3, feed_forward=192, patch=14, image=56, out=96)
TOKENS = (SIZE.image // SIZE.patch) ** 2 + 1
Save = Callable[[Mapping[str, Tensor]], Checkpoint]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Official names with the `visual.` prefix, float32."""
    return fill.tensors(vision(SIZE), file="vision", seed=3)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(tensors: Mapping[str, Tensor]) -> Checkpoint:
        path = tmp_path / f"clip_{len(list(tmp_path.iterdir()))}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        return Checkpoint.open(path)

    return write


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 70, 90, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def reference(weights) -> torch.nn.Module:
    """The same weights in transformers' own model."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=SIZE.width,
        intermediate_size=SIZE.feed_forward,
        num_hidden_layers=SIZE.layers,
        num_attention_heads=SIZE.width // 80,
        image_size=SIZE.image,
        patch_size=SIZE.patch,
        hidden_act="gelu",
        projection_dim=SIZE.out,
    )
    model = CLIPVisionModelWithProjection(config).eval()
    model.load_state_dict(to_hf(weights))
    return model


def open_clip_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layout of OpenCLIP, with a text tower of the same names beside it."""
    names = {
        "patch_embedding": "conv1",
        "pre_norm": "ln_pre",
        "post_norm": "ln_post",
        ".attn.to_qkv.": ".attn.in_proj_",
        ".attn.proj.": ".attn.out_proj.",
        ".norm1.": ".ln_1.",
        ".norm2.": ".ln_2.",
        ".mlp.0.": ".mlp.c_fc.",
        ".mlp.2.": ".mlp.c_proj.",
        "visual.head": "visual.proj",
        "visual.transformer.": "visual.transformer.resblocks.",
    }
    renamed = {
        "visual.class_embedding": weights["visual.cls_embedding"].flatten(),
        "visual.positional_embedding": weights["visual.pos_embedding"][0],
        "positional_embedding": torch.zeros(77, 32),
        "transformer.resblocks.0.attn.in_proj_weight": torch.zeros(96, 32),
        "token_embedding.weight": torch.zeros(8, 32),
        "logit_scale": torch.ones(()),
    }
    for key, tensor in weights.items():
        if key in ("log_scale", "visual.cls_embedding", "visual.pos_embedding"):
            continue
        for theirs, openclip in names.items():
            key = key.replace(theirs, openclip)
        renamed[key] = tensor
    return renamed


def with_text_tower(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As the official .pth: the text tower is in it too."""
    text = {
        "textual.token_embedding.weight": torch.zeros(8, 32),
        "textual.pos_embedding.weight": torch.zeros(8, 32),
        "textual.blocks.0.attn.to_qkv.weight": torch.zeros(96, 32),
    }
    return {**weights, **text}


def without_prefix(prefix: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {key.removeprefix(prefix): tensor for key, tensor in weights.items()}


LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "official with text tower": with_text_tower,
    "official without prefix": without_prefix("visual."),
    "official in a larger file": lambda weights: {f"clip.{key}": tensor for key, tensor in weights.items()},
    "transformers": lambda weights: to_hf(dict(weights)),
    "transformers without prefix": lambda weights: without_prefix("vision_model.")(to_hf(dict(weights))),
    "transformers with a table of positions": lambda weights: {
        **to_hf(dict(weights)),
        "vision_model.embeddings.position_ids": torch.arange(TOKENS)[None],
        "text_model.final_layer_norm.weight": torch.ones(32),
    },
    "OpenCLIP": open_clip_names,
}


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@torch.no_grad()
def expected_states(reference: torch.nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    pixels = pixels_for_clip(images, SIZE.image, crop=True)
    output = reference(pixels, output_hidden_states=True)
    return output.hidden_states, output.image_embeds


def test_rows_are_transformers_hidden_states_before_the_last_layer(save, weights, reference, images):
    states, _ = expected_states(reference, images)
    found = load_clip_vision(save(weights), dtype=torch.float32).encode(images, device="cpu")
    assert found.shape == (3, TOKENS, SIZE.width)
    assert found.dtype == torch.float32
    assert relative_error(found, states[-2]) < 1e-5
    assert relative_error(found, states[-1]) > 1e-2


def test_the_last_layer_and_the_projection_are_transformers_too(save, weights, reference, images):
    states, projected = expected_states(reference, images)
    features = load_clip_vision(save(weights), dtype=torch.float32).features(images, device="cpu")
    assert features.projected is not None
    assert relative_error(features.penultimate, states[-2]) < 1e-5
    assert relative_error(features.last, states[-1]) < 1e-5
    assert relative_error(features.projected, projected) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_key_layout_gives_the_same_bits(save, weights, images, layout, dtype, caplog):
    expected = load_clip_vision(save(weights), dtype=dtype).features(images, device="cpu")
    found = load_clip_vision(save(LAYOUTS[layout](weights)), dtype=dtype).features(images, device="cpu")
    assert torch.equal(found.penultimate, expected.penultimate)
    assert torch.equal(found.last, expected.last)
    assert found.projected is not None
    assert expected.projected is not None
    assert torch.equal(found.projected, expected.projected)
    assert "unexpected" not in caplog.text


def test_a_pickled_file_with_the_text_tower_is_read(tmp_path, save, weights, images):
    torch.save(with_text_tower(weights), tmp_path / "models_clip.pth")
    found = load_clip_vision(Checkpoint.open(tmp_path / "models_clip.pth"), dtype=torch.float32)
    expected = load_clip_vision(save(weights), dtype=torch.float32)
    assert torch.equal(found.encode(images, device="cpu"), expected.encode(images, device="cpu"))


# Measured 4.9e-4 and 3.9e-3 on the tiny tower; the stream and the norms are float32.
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_half_precision_stays_close_on_the_cpu(save, weights, images, dtype, bound):
    exact = load_clip_vision(save(weights), dtype=torch.float32).encode(images, device="cpu")
    found = load_clip_vision(save(weights), dtype=dtype).encode(images, device="cpu")
    assert found.dtype == torch.float32
    assert 0 < relative_error(found, exact) < bound


def test_half_precision_is_no_worse_than_transformers_own(save, weights, reference, images):
    import copy

    exact, _ = expected_states(reference, images)
    half = copy.deepcopy(reference).bfloat16()
    with torch.no_grad():
        pixels = pixels_for_clip(images, SIZE.image, crop=True).bfloat16()
        theirs = half(pixels, output_hidden_states=True).hidden_states[-2]
    found = load_clip_vision(save(weights), dtype=torch.bfloat16).encode(images, device="cpu")
    assert relative_error(found, exact[-2]) <= relative_error(theirs, exact[-2])


def test_fp16_survives_a_residual_stream_beyond_its_range(save, weights, images):
    """Large vision towers have rows of several thousand; the stream must not be fp16."""
    loud = {**weights, "visual.pre_norm.bias": weights["visual.pre_norm.bias"] + 1e5}
    rows = load_clip_vision(save(loud), dtype=torch.float16).encode(images, device="cpu")
    assert torch.isfinite(rows).all()
    assert rows.abs().max() > torch.finfo(torch.float16).max


def test_weights_of_the_files_precision_stay_views_on_the_file(save, weights):
    half = {key: tensor.half() for key, tensor in weights.items()}
    module = load_clip_vision(save(half), dtype=torch.float16).module
    q, k = (module.get_parameter(f"blocks.0.attn.{name}.weight") for name in "qk")
    assert q.dtype == torch.float16
    assert q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr()
    assert module.patch_embedding.weight.dtype == module.pos_embedding.dtype == torch.float32


def test_scaled_fp8_layers_are_decoded(save, weights, images):
    """A joined layer with one scale is cut into q, k and v; the others keep their storage."""
    packed = dict(weights)
    for key, tensor in weights.items():
        if key.endswith(("to_qkv.weight", "mlp.0.weight")):
            scale = tensor.abs().max() / 448.0
            packed[key] = (tensor / scale).to(torch.float8_e4m3fn)
            packed[key.replace(".weight", ".weight_scale")] = scale.reshape(1)
    encoder = load_clip_vision(save(packed), dtype=torch.float32)
    exact = load_clip_vision(save(weights), dtype=torch.float32).encode(images, device="cpu")
    assert relative_error(encoder.encode(images, device="cpu"), exact) < 5e-2
    assert encoder.module.get_parameter("blocks.0.mlp.0.weight").dtype == torch.float8_e4m3fn


def test_a_file_without_projection_has_no_projected_embedding(save, weights, images):
    bare = {key: tensor for key, tensor in weights.items() if key != "visual.head"}
    assert load_clip_vision(save(bare), dtype=torch.float32).features(images, device="cpu").projected is None


def test_more_pictures_than_one_pass_takes_are_encoded_in_order(save, weights):
    encoder = load_clip_vision(save(weights), dtype=torch.float32)
    many = torch.rand(19, 56, 56, 3, generator=torch.Generator().manual_seed(1))
    found = encoder.encode(many, device="cpu")
    assert found.shape[0] == 19
    torch.testing.assert_close(found[17:18], encoder.encode(many[17:18], device="cpu"), rtol=1e-5, atol=1e-5)


def test_check_is_called_before_every_block_and_can_stop(save, weights, images):
    encoder: ClipVisionEncoder = load_clip_vision(save(weights), dtype=torch.float32)
    calls: list[int] = []
    encoder.encode(images, device="cpu", check=lambda: calls.append(1))
    assert len(calls) == SIZE.layers - 1

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(images, device="cpu", check=stop)


def test_a_tower_of_another_width_is_named(save):
    large = fill.tensors(vision(VisionSize(width=1024, image=28, feed_forward=32)), file="vision", seed=1)
    with pytest.raises(ModelFileError, match=r"width 1024 \(ViT-L\) with 2 layers.*ViT-H \(width 1280\)"):
        load_clip_vision(save(large), dtype=torch.float32)


def test_siglip_is_told_apart(save, weights):
    tensors = to_hf(weights)
    del tensors["vision_model.embeddings.class_embedding"]
    with pytest.raises(ModelFileError, match=r"without a class embedding \(SigLIP\?\)"):
        load_clip_vision(save(tensors), dtype=torch.float32)


def test_another_kind_of_file_is_named(save):
    other = {
        "blocks.0.self_attn.q.weight": torch.zeros(8, 8),
        "patch_embedding.weight": torch.zeros(8, 16, 1, 2, 2),
    }
    with pytest.raises(ModelFileError, match=r"is not a CLIP image encoder: it looks like a Wan transformer"):
        load_clip_vision(save(other), dtype=torch.float32)


@pytest.mark.parametrize(
    ("key", "tensor", "problem"),
    [
        ("visual.transformer.1.norm1.bias", None, "1 of .* weights are missing: blocks.1.norm1.bias"),
        ("visual.pos_embedding", torch.zeros(1, 7, 160), "7 positions"),
        ("visual.transformer.0.attn.to_qkv.weight", torch.zeros(481, 160), "481 rows"),
        ("visual.patch_embedding.weight", torch.zeros(160, 4, 14, 14), "expected .width, 3, side, side"),
        ("visual.transformer.2.mlp.2.bias", torch.full((160,), torch.nan), "NaN"),
    ],
)
def test_damaged_files_are_refused_by_what_is_wrong(save, weights, key, tensor, problem):
    damaged = {name: value for name, value in weights.items() if name != key}
    if tensor is not None:
        damaged[key] = tensor
    with pytest.raises(ModelFileError, match=problem):
        load_clip_vision(save(damaged), dtype=torch.float32)
