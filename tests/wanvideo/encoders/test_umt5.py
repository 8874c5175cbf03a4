"""The UMT5 network against transformers' UMT5EncoderModel."""

from collections.abc import Callable

import pytest
import torch
from comfyui_wanvideo.wanvideo.encoders.text_encoder import load_umt5
from comfyui_wanvideo.wanvideo.encoders.umt5 import UMT5Encoder, distance_buckets
from torch import Tensor

CPU = torch.device("cpu")


def random_prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, 256, (length,), generator=generator).tolist() for length in lengths]


def run(
    module: UMT5Encoder, prompts: list[list[int]], dtype: torch.dtype = torch.float32, device=CPU
) -> list[Tensor]:
    with torch.no_grad():
        return module(prompts, dtype=dtype, device=device, check=lambda: None)


@pytest.fixture
def module(save_umt5, umt5_weights) -> UMT5Encoder:
    return load_umt5(save_umt5(umt5_weights), dtype=torch.float32).module


def test_sizes_come_from_the_shapes(module, umt5_size):
    config = module.config
    assert (config.width, config.attention_width, config.heads) == (64, 96, 4)
    assert (config.vocabulary, config.feed_forward_width, config.layers, config.buckets) == (256, 128, 3, 32)


def test_fp32_matches_transformers_within_1e5(module, reference_umt5, relative_error):
    prompts = random_prompts(1, 7, 300)
    for found, expected in zip(run(module, prompts), reference_umt5(prompts), strict=True):
        assert relative_error(found, expected) < 1e-5


def test_bf16_is_within_2_percent_and_no_worse_than_transformers_own_bf16(
    save_umt5, umt5_weights, reference_umt5, relative_error
):
    prompts = random_prompts(40, 150)
    module = load_umt5(save_umt5(umt5_weights), dtype=torch.bfloat16).module
    exact = torch.cat(reference_umt5(prompts))
    theirs = relative_error(torch.cat(reference_umt5(prompts, dtype=torch.bfloat16)), exact)
    ours = relative_error(torch.cat(run(module, prompts, torch.bfloat16)), exact)
    assert ours < 2e-2
    assert ours <= theirs


def test_fp16_is_within_a_quarter_percent_of_fp32(module, relative_error):
    prompts = random_prompts(40, 150)
    exact = torch.cat(run(module, prompts))
    assert relative_error(torch.cat(run(module, prompts, torch.float16)), exact) < 2.5e-3


def test_fp16_survives_feed_forward_values_beyond_its_range(
    save_umt5, umt5_weights, reference_umt5, relative_error
):
    # A few products of fc1 and gate lie beyond 65504 here, as single channels of umt5-xxl do.
    large = {
        key: tensor * 110 if ".fc1." in key or ".gate." in key else tensor
        for key, tensor in umt5_weights.items()
    }
    large["blocks.1.ffn.fc2.weight"] = large["blocks.1.ffn.fc2.weight"] * 1e-3
    module = load_umt5(save_umt5(large), dtype=torch.float16).module
    prompts = random_prompts(60)
    assert not torch.isfinite(reference_umt5(prompts, dtype=torch.float16, weights=large)[0]).all()
    found = run(module, prompts, torch.float16)[0]
    assert torch.isfinite(found).all()
    assert relative_error(found, reference_umt5(prompts, weights=large)[0]) < 0.1


def test_a_prompt_does_not_depend_on_the_others_in_its_batch(module, relative_error):
    prompts = random_prompts(5, 90, 33)
    together = run(module, prompts)
    for prompt, found in zip(prompts, together, strict=True):
        assert relative_error(found, run(module, [prompt])[0]) < 1e-6


def test_buckets_match_transformers_up_to_the_longest_prompt():
    from transformers import UMT5Config
    from transformers.models.umt5.modeling_umt5 import UMT5Attention

    theirs = UMT5Attention(UMT5Config(d_model=8, d_kv=4, num_heads=2), has_relative_attention_bias=True)
    expected = theirs._relative_position_bucket(torch.arange(1 - 512, 512))
    assert torch.equal(distance_buckets(512, 32), expected)


def test_check_is_asked_before_every_block(module):
    asked = []
    with torch.no_grad():
        module(random_prompts(4), dtype=torch.float32, device=CPU, check=lambda: asked.append(1))
    assert len(asked) == len(module.blocks)


def test_an_interrupt_stops_before_the_next_block(module):
    ran = []
    for number, block in enumerate(module.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))

    def stop_at_the_second() -> None:
        if ran:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        module(random_prompts(4), dtype=torch.float32, device=CPU, check=stop_at_the_second)
    assert ran == [0]


def test_weights_borrowed_from_another_device_give_the_same_bits(module):
    prompts = random_prompts(12, 3)
    # "cpu:0" is another name for the CPU, so every block goes the way of weights that lie elsewhere.
    borrowed: Callable[..., list[Tensor]] = run
    for found, expected in zip(
        borrowed(module, prompts, device=torch.device("cpu:0")), run(module, prompts), strict=True
    ):
        assert torch.equal(found, expected)
