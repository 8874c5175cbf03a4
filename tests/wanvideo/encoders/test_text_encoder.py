"""Loading UMT5 files, and encoding prompts with weights."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill, specs, spiece
from comfyui_wanvideo.wanvideo.encoders.text_encoder import load_umt5
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from safetensors.torch import save_file
from torch import Tensor

from .conftest import PROMPTS, encode

# key styles


def test_both_key_styles_give_the_same_bits(exact, save_umt5, umt5_weights):
    checkpoint = save_umt5(umt5_weights, style="hf")
    assert torch.equal(encode(load_umt5(checkpoint, dtype=torch.float32)), exact)


def test_the_tied_table_and_a_decoder_in_the_file_are_left_out(exact, save_umt5, umt5_weights):
    extra = {
        "encoder.embed_tokens.weight": umt5_weights["token_embedding.weight"].clone(),
        "decoder.block.0.layer.0.SelfAttention.q.weight": torch.randn(4, 4),
        "lm_head.weight": torch.randn(4, 4),
    }
    checkpoint = save_umt5(umt5_weights, style="hf", extra=extra)
    assert torch.equal(encode(load_umt5(checkpoint, dtype=torch.float32)), exact)


def test_a_file_with_the_table_under_its_second_name_loads(exact, umt5_weights, spiece_model, tmp_path):
    tensors = {specs.umt5_hf_name(key): tensor for key, tensor in umt5_weights.items()}
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file({**tensors, "spiece_model": spiece.as_tensor(spiece_model)}, tmp_path / "t5.safetensors")
    loaded = load_umt5(Checkpoint.open(tmp_path / "t5.safetensors"), dtype=torch.float32)
    assert torch.equal(encode(loaded), exact)


def test_the_encoder_inside_an_all_in_one_checkpoint_loads(exact, umt5_weights, spiece_model, tmp_path):
    prefix = "text_encoders.umt5xxl.transformer."
    tensors = {prefix + specs.umt5_hf_name(key): tensor for key, tensor in umt5_weights.items()}
    tensors["text_encoders.umt5xxl.spiece_model"] = spiece.as_tensor(spiece_model)
    tensors["model.diffusion_model.patch_embedding.weight"] = torch.randn(4, 4)
    save_file(tensors, tmp_path / "all.safetensors")
    loaded = load_umt5(Checkpoint.open(tmp_path / "all.safetensors"), dtype=torch.float32)
    assert torch.equal(encode(loaded), exact)


def test_a_pytorch_file_loads(exact, save_umt5, umt5_weights, tmp_path):
    lender = save_umt5(umt5_weights)
    torch.save(umt5_weights, tmp_path / "encoder.pth")
    checkpoint = Checkpoint.open(tmp_path / "encoder.pth")
    loaded = load_umt5(checkpoint, dtype=torch.float32, other_files=[lender.path])
    assert torch.equal(encode(loaded), exact)


def test_every_weight_that_is_multiplied_is_a_wan_linear(encoder):
    linears = [layer for layer in encoder.module.blocks.modules() if isinstance(layer, WanLinear)]
    assert len(linears) == 7 * 3


# files that are something else


def a_vae() -> dict[str, Tensor]:
    return fill.tensors(specs.wan21_vae(specs.VAESize(base=4)), file="vae", seed=0)


def a_transformer() -> dict[str, Tensor]:
    return fill.tensors(specs.dit(specs.DiTSize(width=128, feed_forward=128, layers=1)), file="dit", seed=0)


def a_plain_t5() -> dict[str, Tensor]:
    size = specs.UMT5Size(vocabulary=64, width=64, attention_width=64, heads=1, feed_forward=64, layers=2)
    weights = fill.tensors(specs.umt5(size), file="t5", seed=0)
    del weights["blocks.1.pos_embedding.embedding.weight"]
    return {specs.umt5_hf_name(key): tensor for key, tensor in weights.items()}


def a_clip() -> dict[str, Tensor]:
    return {"text_model.encoder.layers.0.self_attn.q_proj.weight": torch.randn(4, 4)}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (a_vae, "Wan 2.1 VAE"),
        (a_transformer, "Wan transformer"),
        (a_plain_t5, "T5 text encoder of another model"),
        (a_clip, "CLIP text encoder"),
    ],
)
def test_another_kind_of_file_is_refused_by_its_name(make, named, tmp_path):
    save_file(make(), tmp_path / "wrong.safetensors")
    with pytest.raises(ModelFileError, match=rf"wrong\.safetensors: is not a UMT5 text encoder.*{named}"):
        load_umt5(Checkpoint.open(tmp_path / "wrong.safetensors"), dtype=torch.float32)


def test_missing_weights_are_named(save_umt5, umt5_weights):
    incomplete = {key: value for key, value in umt5_weights.items() if key != "blocks.2.ffn.fc2.weight"}
    with pytest.raises(ModelFileError, match=r"blocks\.2\.ffn\.fc2\.weight"):
        load_umt5(save_umt5(incomplete), dtype=torch.float32)


def test_an_encoder_without_its_embedding_table_is_called_incomplete(save_umt5, umt5_weights):
    incomplete = {key: value for key, value in umt5_weights.items() if key != "token_embedding.weight"}
    with pytest.raises(ModelFileError, match="incomplete"):
        load_umt5(save_umt5(incomplete, style="hf"), dtype=torch.float32)


def test_nan_weights_are_refused(save_umt5, umt5_weights):
    damaged = {**umt5_weights, "blocks.1.attn.k.weight": torch.full((96, 64), float("nan"))}
    with pytest.raises(ModelFileError, match=r"NaN.*blocks\.1\.attn\.k\.weight"):
        load_umt5(save_umt5(damaged), dtype=torch.float32)


def test_a_tokenizer_with_more_pieces_than_the_table_has_rows_is_refused(save_umt5, umt5_weights):
    small = {**umt5_weights, "token_embedding.weight": torch.randn(100, 64)}
    with pytest.raises(ModelFileError, match="do not belong together"):
        load_umt5(save_umt5(small), dtype=torch.float32)


# encoding


def test_rows_are_the_tokens_with_the_end_token_and_no_padding(encoder):
    for prompt, rows in zip(PROMPTS, encoder.encode(PROMPTS, device="cpu"), strict=True):
        assert rows.shape == (len(encoder.tokenizer.encode(prompt).ids), encoder.width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_result_has_the_compute_dtype(dtype, save_umt5, umt5_weights):
    loaded = load_umt5(save_umt5(umt5_weights), dtype=dtype)
    assert encode(loaded).dtype == dtype


def test_the_empty_prompt_is_one_row(encoder):
    (rows,) = encoder.encode([""], device="cpu")
    assert rows.shape == (1, encoder.width)


def test_prompts_are_cleaned_before_they_are_encoded(encoder):
    messy, clean = encoder.encode(["  a &amp;amp; b\n c ", "a & b c"], device="cpu")
    assert torch.equal(messy, clean)


def test_a_prompt_of_more_than_512_tokens_is_cut_with_a_warning(encoder, caplog):
    (rows,) = encoder.encode(["the fox " * 400], device="cpu")
    assert rows.shape[0] == 512
    assert "were dropped" in caplog.text


def test_results_come_in_the_order_of_the_prompts(encoder):
    fox, snow, fox_again = encoder.encode(["a fox", "snow", "a fox"], device="cpu")
    assert torch.equal(fox, fox_again)
    torch.testing.assert_close(snow, encoder.encode(["snow"], device="cpu")[0])


def test_equal_prompts_are_encoded_once(encoder):
    sizes = []
    encoder.module.norm.register_forward_hook(lambda _module, _inputs, out: sizes.append(len(out)))
    once = encoder.encode(["a fox"], device="cpu")[0]
    encoder.encode(["a fox", "a fox", " a  fox"], device="cpu")
    assert sizes == [len(once), len(once)]


# weights


def test_weight_one_changes_nothing(encoder):
    marked, plain = encoder.encode(
        ["a (red fox:1.0) jumps, (snow:1.0)", "a red fox jumps, snow"], device="cpu"
    )
    assert torch.equal(marked, plain)


def test_a_weight_changes_only_its_tokens(encoder):
    marked, plain = encoder.encode(["a dancer (runs:1.5) along", "a dancer runs along"], device="cpu")
    places = encoder.tokenizer.encode("a dancer runs along").places
    inside = torch.tensor(
        [place[0] >= len("a dancer") and place[1] <= len("a dancer runs") for place in places]
    )
    inside[-1] = False
    assert inside.any()
    assert torch.equal(marked[~inside], plain[~inside])
    torch.testing.assert_close(marked[inside], plain[inside] * 1.5)


def test_the_first_token_is_weighted_around_the_empty_prompt(encoder):
    marked, plain, empty = encoder.encode(["(dancer:0.5) runs", "dancer runs", ""], device="cpu")
    torch.testing.assert_close(marked[0], empty[0] + 0.5 * (plain[0] - empty[0]))


@pytest.fixture
def core_encode(comfyui_path, umt5_weights, umt5_size, spiece_model):
    """ComfyUI's own Wan text encoder on the same weights."""
    from comfy.text_encoders.wan import WanT5Model, WanT5Tokenizer

    config = {
        "d_model": umt5_size.width,
        "d_kv": umt5_size.attention_width // umt5_size.heads,
        "num_heads": umt5_size.heads,
        "d_ff": umt5_size.feed_forward,
        "num_layers": umt5_size.layers,
        "vocab_size": umt5_size.vocabulary,
    }
    model = WanT5Model(dtype=torch.float32, model_options={"umt5xxl_model_config": config})
    missing, _ = model.load_sd({specs.umt5_hf_name(key): tensor for key, tensor in umt5_weights.items()})
    assert not missing
    tokenizer = WanT5Tokenizer(tokenizer_data={"spiece_model": spiece.as_tensor(spiece_model)})

    def encode_one(text: str) -> Tensor:
        with torch.no_grad():
            return model.encode_token_weights(tokenizer.tokenize_with_weights(text))[0][0]

    return encode_one


@pytest.mark.parametrize(
    "text",
    [
        "a red fox jumps over the snow",
        "a (red fox:1.3) jumps over (the snow:0.7)",
        "(a red:1.2) fox",
        "a fox jumps (over the (snow:1.4) forest:0.8)",
        "a (fox:0) jumps",
        "a (fox:-0.5) jumps",
        "",
    ],
)
def test_weighted_prompts_match_comfyui_within_1e5(text, encoder, core_encode, relative_error):
    (found,) = encoder.encode([text], device="cpu")
    expected = core_encode(text)
    assert relative_error(found, expected[: len(found)]) < 1e-5
    assert not expected[len(found) :].any()
