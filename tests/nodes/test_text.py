"""Text nodes, with this pack's text encoder and with ComfyUI's."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import specs
from safetensors.torch import load_file, save_file

PROMPT, NEGATIVE = "a red fox jumps over the snow", "low quality, blurry"


@pytest.fixture
def nodes(node_module):
    return node_module("text")


@pytest.fixture
def encoder(nodes, text_encoder_file):
    return nodes.LoadWanVideoT5TextEncoder.execute(model_name=text_encoder_file.name, precision="fp32")[0]


@pytest.fixture
def cache_folder(comfyui_path, monkeypatch, tmp_path):
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    return tmp_path / "user" / "wanvideo" / "text_embeds"


@pytest.fixture
def count_encodes(monkeypatch):
    """Prompts that really go through the text encoder."""
    from comfyui_wanvideo.wanvideo.encoders.text_encoder import TextEncoder

    encoded, original = [], TextEncoder.encode

    def counted(self, prompts, **more):
        encoded.extend(prompts)
        return original(self, prompts, **more)

    monkeypatch.setattr(TextEncoder, "encode", counted)
    return encoded


def encode(nodes, t5, positive=PROMPT, negative=NEGATIVE, **more):
    return nodes.WanVideoTextEncode.execute(
        positive_prompt=positive, negative_prompt=negative, t5=t5, **more
    )[0]


def encode_cached(nodes, file, **more):
    inputs = {"precision": "fp32", "quantization": "disabled", "use_disk_cache": True, "device": "gpu"}
    return nodes.WanVideoTextEncodeCached.execute(
        model_name=file.name, positive_prompt=PROMPT, negative_prompt=NEGATIVE, **{**inputs, **more}
    )


def test_both_prompts_are_encoded_without_padding(nodes, encoder):
    embeds = encode(nodes, encoder)
    (positive,), (negative,) = embeds.prompt_embeds, embeds.negative_prompt_embeds
    expected = encoder.encoder.encode([PROMPT, NEGATIVE], device="cpu")
    assert torch.equal(positive, expected[0])
    assert torch.equal(negative, expected[1])
    assert positive.shape == (len(encoder.encoder.tokenizer.encode(PROMPT).ids), 32)


def test_a_bar_separates_prompts(nodes, encoder):
    embeds = encode(nodes, encoder, positive="a red fox | a white cat")
    alone = encode(nodes, encoder, positive="a white cat")
    assert len(embeds.prompt_embeds) == 2
    torch.testing.assert_close(embeds.prompt_embeds[1], alone.prompt_embeds[0], rtol=1e-5, atol=1e-5)


def test_numbered_shots_are_marked(nodes, encoder):
    embeds = encode(nodes, encoder, positive="[1] a red fox [2] a white cat")
    assert embeds.is_echoshot
    assert len(embeds.prompt_embeds) == 2


def test_an_empty_negative_prompt_is_one_token(nodes, encoder):
    assert encode(nodes, encoder, negative="").negative_prompt_embeds[0].shape == (1, 32)


def test_single_prompt_has_no_negative(nodes, encoder):
    embeds = nodes.WanVideoTextEncodeSingle.execute(prompt=PROMPT, t5=encoder)[0]
    assert torch.equal(embeds.prompt_embeds[0], encode(nodes, encoder).prompt_embeds[0])
    assert embeds.negative_prompt_embeds == ()


def test_nothing_connected_is_an_error_with_the_fix(nodes):
    with pytest.raises(Exception, match=r"^WanVideo TextEncode: t5: no text encoder connected"):
        encode(nodes, None)


def test_something_else_connected_is_an_error(nodes):
    with pytest.raises(Exception, match="expected a text encoder, got dict"):
        encode(nodes, {})


@pytest.mark.parametrize("force_offload", [True, False])
def test_the_encoder_stays_loaded_only_when_asked(nodes, encoder, force_offload, manager, monkeypatch):
    gpu, moved, used = torch.device("meta"), [], []

    def encoded(self, prompts, *, device, check):
        """Nothing can be computed on the meta device."""
        used.append(device)
        return [torch.zeros(1, self.width) for _ in prompts]

    monkeypatch.setattr(type(encoder.encoder), "encode", encoded)
    encoder.managed.load_device = gpu
    encoder.managed.residency.load = lambda device: moved.append(device) or 0
    encode(nodes, encoder, force_offload=force_offload)
    assert used == [gpu]
    assert moved == ([] if force_offload else [gpu])


def test_cpu_never_touches_the_gpu(nodes, encoder, manager):
    encoder.managed.load_device = torch.device("meta")
    embeds = encode(nodes, encoder, device="cpu", force_offload=False)
    assert embeds.prompt_embeds[0].device.type == "cpu"
    assert manager.current_loaded_models == []


def test_a_model_to_offload_leaves_its_device_first(nodes, encoder, host, manager):
    from types import SimpleNamespace

    from comfyui_wanvideo.wanvideo.weights.residency import Residency

    residency = Residency(torch.nn.Linear(2, 2), copy=lambda tensor, _: tensor.clone())
    model = host.ManagedModel(residency, load_device=torch.device("meta"), offload_device=torch.device("cpu"))
    host.load(model)
    encode(nodes, encoder, device="cpu", model_to_offload=SimpleNamespace(managed=model))
    assert residency.resident_bytes == 0


def test_an_interrupt_stops_encoding(nodes, encoder):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        encode(nodes, encoder)


def test_disk_cache_gives_the_same_rows_without_encoding(nodes, encoder, cache_folder, count_encodes):
    first = encode(nodes, encoder, use_disk_cache=True)
    count_encodes.clear()
    second = encode(nodes, encoder, use_disk_cache=True)
    assert count_encodes == []
    assert torch.equal(first.prompt_embeds[0], second.prompt_embeds[0])
    assert torch.equal(first.negative_prompt_embeds[0], second.negative_prompt_embeds[0])


def test_disk_cache_encodes_only_new_prompts(nodes, encoder, cache_folder, count_encodes):
    encode(nodes, encoder, use_disk_cache=True)
    count_encodes.clear()
    encode(nodes, encoder, positive="a white cat", use_disk_cache=True)
    assert count_encodes == ["a white cat"]


def test_disk_cache_lies_in_the_user_folder_as_safetensors(nodes, encoder, cache_folder):
    encode(nodes, encoder, use_disk_cache=True)
    assert [path.suffix for path in cache_folder.iterdir()] == [".safetensors"] * 2


def test_without_disk_cache_nothing_is_written(nodes, encoder, cache_folder):
    encode(nodes, encoder)
    assert not cache_folder.exists()


def test_disk_cache_of_another_precision_is_not_used(nodes, text_encoder_file, cache_folder, count_encodes):
    encode_cached(nodes, text_encoder_file, precision="fp32")
    count_encodes.clear()
    encode_cached(nodes, text_encoder_file, precision="bf16")
    assert sorted(count_encodes) == sorted([PROMPT, NEGATIVE])


def test_disk_cache_of_a_changed_file_is_not_used(nodes, text_encoder_file, cache_folder, count_encodes):
    import os

    encode_cached(nodes, text_encoder_file)
    count_encodes.clear()
    os.utime(text_encoder_file, ns=(1, 1))
    encode_cached(nodes, text_encoder_file)
    assert sorted(count_encodes) == sorted([PROMPT, NEGATIVE])


def test_a_damaged_cache_file_is_encoded_again(nodes, encoder, cache_folder, caplog):
    first = encode(nodes, encoder, use_disk_cache=True)
    for path in cache_folder.iterdir():
        path.write_bytes(b"half of a fi")
    second = encode(nodes, encoder, use_disk_cache=True)
    assert torch.equal(first.prompt_embeds[0], second.prompt_embeds[0])
    assert "is not readable" in caplog.text


def test_cached_node_opens_no_text_encoder_for_known_prompts(
    nodes, node_module, text_encoder_file, cache_folder, monkeypatch
):
    encode_cached(nodes, text_encoder_file)

    def fail(*_):
        raise AssertionError("the text encoder was opened")

    monkeypatch.setattr(nodes, "load_text_encoder", fail)
    assert len(encode_cached(nodes, text_encoder_file)[0].prompt_embeds) == 1


def test_cached_node_gives_both_the_negative_alone_and_the_prompt(nodes, encoder, text_encoder_file):
    both, negative, prompt = encode_cached(nodes, text_encoder_file, use_disk_cache=False).args
    expected = encode(nodes, encoder)
    assert torch.equal(both.prompt_embeds[0], expected.prompt_embeds[0])
    assert torch.equal(negative.prompt_embeds[0], expected.negative_prompt_embeds[0])
    assert negative.negative_prompt_embeds == ()
    assert prompt == PROMPT


def test_cached_node_leaves_nothing_in_comfyuis_list(nodes, text_encoder_file, manager):
    encode_cached(nodes, text_encoder_file, use_disk_cache=False)
    assert manager.current_loaded_models == []


def test_extending_the_prompt_is_refused_by_name(nodes, text_encoder_file):
    with pytest.raises(Exception, match=r"^WanVideo TextEncode Cached: extender_args: .*not available"):
        encode_cached(nodes, text_encoder_file, extender_args={})


def test_fp8_stores_linear_weights_in_fp8_and_is_another_encoder_for_the_cache(nodes, text_encoder_file):
    def load(quantization):
        return nodes.LoadWanVideoT5TextEncoder.execute(
            model_name=text_encoder_file.name, precision="bf16", quantization=quantization
        )[0]

    plain, small = load("disabled"), load("fp8_e4m3fn")
    assert small.encoder.module.blocks[0].attn.q.weight.dtype == torch.float8_e4m3fn
    assert small.identity != plain.identity


def test_another_kind_of_file_is_found_out_before_anything_runs(nodes, text_encoder_file):
    save_file(
        {"blocks.0.self_attn.q.weight": torch.zeros(2, 2)}, text_encoder_file.with_name("dit.safetensors")
    )
    answer = nodes.LoadWanVideoT5TextEncoder.validate_inputs(model_name="dit.safetensors")
    assert "is not a UMT5 text encoder" in answer


def test_a_text_encoder_file_passes_the_check(nodes, text_encoder_file):
    name = f"x\\{text_encoder_file.name.upper()}"
    assert nodes.LoadWanVideoT5TextEncoder.validate_inputs(model_name=name) is True
    assert nodes.WanVideoTextEncodeCached.validate_inputs(model_name=name) is True


@pytest.fixture
def clip(text_encoder_file):
    """The same weights in ComfyUI's own text encoder, as Load CLIP (type wan) makes it."""
    from types import SimpleNamespace

    import comfy.sd
    import comfy.text_encoders.wan as core

    weights = load_file(text_encoder_file)
    tokenizer = weights.pop("spiece_model")
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 2, "num_layers": 2, "vocab_size": 1024}
    return comfy.sd.CLIP(
        SimpleNamespace(params={}, clip=core.te(), tokenizer=core.WanT5Tokenizer),
        tokenizer_data={"spiece_model": tokenizer},
        state_dict=[{specs.umt5_hf_name(key): weight for key, weight in weights.items()}],
        model_options={"umt5xxl_model_config": sizes, "dtype": torch.float32},
    )


@pytest.mark.parametrize("positive", [PROMPT, "a   red fox\n", "a (red fox:1.4) jumps"])
def test_a_core_clip_gives_the_same_rows_as_our_encoder(nodes, encoder, clip, positive):
    found, expected = encode(nodes, clip, positive=positive), encode(nodes, encoder, positive=positive)
    torch.testing.assert_close(found.prompt_embeds[0], expected.prompt_embeds[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.negative_prompt_embeds[0], expected.negative_prompt_embeds[0], rtol=1e-4, atol=1e-5
    )


def test_the_bridge_gives_the_same_rows_as_our_encoder(nodes, encoder, clip):
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT))
    found = nodes.WanVideoTextEmbedBridge.execute(positive=conditioning)[0].prompt_embeds[0]
    assert conditioning[0][0].shape[1] == 512
    torch.testing.assert_close(found, encode(nodes, encoder).prompt_embeds[0], rtol=1e-4, atol=1e-5)


def test_a_bar_separates_prompts_for_a_core_clip_too(nodes, clip):
    assert len(encode(nodes, clip, positive="a cat | a dog").prompt_embeds) == 2


def test_disk_cache_is_left_out_for_a_core_clip(nodes, clip, cache_folder):
    encode(nodes, clip, use_disk_cache=True)
    assert not cache_folder.exists()


def test_bridge_cuts_the_padding_off(nodes):
    rows = torch.randn(1, 7, 8)
    padded = torch.cat([rows, torch.zeros(1, 505, 8)], dim=1)
    embeds = nodes.WanVideoTextEmbedBridge.execute(positive=[[padded, {}]], negative=[[rows, {}]])[0]
    assert torch.equal(embeds.prompt_embeds[0], rows[0])
    assert torch.equal(embeds.negative_prompt_embeds[0], rows[0])


def test_bridge_keeps_zero_rows_between_others(nodes):
    rows = torch.ones(1, 4, 8)
    rows[0, 1] = 0.0
    assert nodes.WanVideoTextEmbedBridge.execute(positive=[[rows, {}]])[0].prompt_embeds[0].shape == (4, 8)


def test_bridge_without_negative_has_none(nodes):
    embeds = nodes.WanVideoTextEmbedBridge.execute(positive=[[torch.ones(1, 4, 8), {}]])[0]
    assert embeds.negative_prompt_embeds == ()


@pytest.mark.parametrize(
    "conditioning", [[], [[torch.ones(1, 2, 8), {}]] * 2, [[None, {}]], [[torch.ones(8), {}]], None]
)
def test_bridge_refuses_what_it_cannot_read(nodes, conditioning):
    with pytest.raises(Exception, match=r"^WanVideo TextEmbed Bridge: positive: this CONDITIONING"):
        nodes.WanVideoTextEmbedBridge.execute(positive=conditioning)
