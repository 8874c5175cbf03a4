"""The VACE blocks beside those of the model: parity of one forward, and what must not change it."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.tools.tiny import families as shapes
from comfyui_wanvideo.tools.tiny import fill, specs
from comfyui_wanvideo.wanvideo.attention.backend import LayoutAttention, TokenLayout
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.families.phantom.inputs import PHANTOM, PhantomInput
from comfyui_wanvideo.wanvideo.families.vace.stream import VaceBlock
from safetensors.torch import save_file
from torch.nn import functional

from ...transformer.twins import comfy_twin, diffusers_twin
from .conftest import (
    BASE,
    FULL,
    ROWS,
    TIMESTEP,
    context_of,
    evaluation,
    load,
    relative_error,
    run_state,
    setup_of,
)

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2e-2
LAYERS = (0, 2)


def diffusers_twin_of(model, layers=LAYERS):
    from diffusers.models.transformers.transformer_wan_vace import WanVACETransformer3DModel

    return diffusers_twin(model, WanVACETransformer3DModel, vace_layers=list(layers), vace_in_channels=96)


def comfy_twin_of(model):
    from comfy.ldm.wan.model import VaceWanModel

    return comfy_twin(model, VaceWanModel, vace_layers=len(LAYERS), vace_in_dim=96)


def padded(text):
    return functional.pad(text, (0, 0, 0, 512 - len(text)))[None]


def prepared(model, context, leading=0):
    return context.prepared(setup_of(model, leading_frames=leading))


def scaled_layers(path, scales):
    """A model whose VACE results are scaled layer by layer, in its weights."""
    model = load(path)
    blocks = [block for block in model.modules() if isinstance(block, VaceBlock)]
    for block, scale in zip(blocks, scales, strict=True):
        for parameter in block.after_proj.parameters():
            parameter.data = parameter.data * scale
    return model


@torch.inference_mode()
@pytest.mark.parametrize("references", [0, 2])
def test_forward_with_a_scale_per_layer_equals_diffusers_in_fp32(model, tiny, references):
    scales = [0.6, 1.7]
    one, context = evaluation(references), prepared(model, context_of(references=references), references)
    expected = diffusers_twin_of(model)(
        one.latent,
        torch.tensor([TIMESTEP]),
        padded(one.text),
        control_hidden_states=context.channels(slice(None)),
        control_hidden_states_scale=torch.tensor(scales),
    ).sample
    found = one(scaled_layers(tiny / f"{FULL}.safetensors", scales), context)
    assert relative_error(found, expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_as_many_blocks_as_the_model_has_equal_diffusers_in_fp32(tiny, tmp_path):
    """The last one runs behind the last block of the model."""
    save_file(
        fill.tensors(shapes.vace(specs.DiTSize(), 4), file="vace", seed=0), tmp_path / "four.safetensors"
    )
    model = load(tiny / f"{BASE}.safetensors", tmp_path / "four.safetensors")
    one, context = evaluation(), prepared(model, context_of())
    expected = diffusers_twin_of(model, range(4))(
        one.latent,
        torch.tensor([TIMESTEP]),
        padded(one.text),
        control_hidden_states=context.channels(slice(None)),
    ).sample
    assert relative_error(one(model, context), expected) <= FP32_TOLERANCE


@torch.inference_mode()
def test_two_contexts_with_strengths_equal_comfyui_in_fp32(model, comfyui_path):
    one = evaluation(1)
    contexts = [
        prepared(model, context_of(seed, references=1, strength=strength), 1)
        for seed, strength in ((1, 0.5), (2, 1.25))
    ]
    expected = comfy_twin_of(model)(
        one.latent,
        torch.tensor([TIMESTEP]),
        context=padded(one.text),
        vace_context=torch.stack([context.channels(slice(None)) for context in contexts], dim=1),
        vace_strength=[0.5, 1.25],
    )
    assert relative_error(one(model, *contexts), expected) <= FP32_TOLERANCE


def test_a_bf16_forward_is_close_to_fp32(model, tiny):
    one, context = evaluation(), prepared(model, context_of())
    low = load(tiny / f"{FULL}.safetensors", dtype=torch.bfloat16)
    assert relative_error(one(low, context), one(model, context)) <= BF16_TOLERANCE


def test_a_context_changes_the_prediction(model):
    one = evaluation()
    assert relative_error(one(model, prepared(model, context_of())), one(model)) > 1e-2


def test_without_its_input_a_model_is_the_one_without_vace_bit_for_bit(model, plain):
    one = evaluation()
    assert torch.equal(one(model), one(plain))


@pytest.mark.parametrize("references", [0, 1])
def test_row_chunks_change_nothing_but_rounding(model, references):
    one, context = evaluation(references), prepared(model, context_of(references=references), references)
    found = one(model, context, run=run_state(row_chunks=3))
    assert relative_error(found, one(model, context)) <= FP32_TOLERANCE


def test_two_videos_of_a_batch_share_the_contexts(model):
    two, context = evaluation(batch=2), prepared(model, context_of())
    both = two(model, context)
    for member in range(2):
        alone = replace(two, latent=two.latent[member : member + 1])(model, context)
        assert relative_error(both[member : member + 1], alone) <= FP32_TOLERANCE


def test_the_same_context_twice_at_half_the_strength_is_one(model):
    one, context = evaluation(), prepared(model, context_of())
    half = replace(context, strength=0.5)
    assert relative_error(one(model, half, half), one(model, context)) <= FP32_TOLERANCE


def phantom(count=1):
    latent = torch.randn(1, 16, count, ROWS, 10, generator=torch.Generator().manual_seed(3))
    return {PHANTOM: PhantomInput((latent,))}


def test_what_vace_adds_goes_to_the_video_alone_beside_a_family_with_segments(model):
    left, entered = {}, {}
    handles = [
        model.blocks[0].register_forward_hook(lambda _m, _i, output: left.update(tokens=output.clone())),
        model.blocks[1].register_forward_pre_hook(lambda _m, given: entered.update(tokens=given[0].clone())),
    ]
    try:
        evaluation()(model, prepared(model, context_of()), **phantom())
    finally:
        for handle in handles:
            handle.remove()
    video = 3 * 3 * 5
    added = entered["tokens"] - left["tokens"]
    assert added.shape[1] == video + 3 * 5
    assert bool((added[:, video:] == 0).all())
    assert float(added[:, :video].abs().mean()) > 0.01


def test_beside_another_family_its_own_tokens_are_those_of_the_video_alone(model):
    states = []
    block = model.points.streams["vace"].blocks[1]
    handle = block.register_forward_pre_hook(lambda _m, given: states.append(given[0].clone()))
    try:
        evaluation()(model, prepared(model, context_of()), **phantom())
        evaluation()(model, prepared(model, context_of()))
    finally:
        handle.remove()
    assert torch.equal(*states)


class Replacing:
    """A stream that hands on new tensors instead of changing the tokens in place."""

    blocks = {}

    def begin(self, family_input, start):
        del family_input, start
        return self

    def before_block(self, index, tokens):
        del index
        return tokens

    def run_block(self, index, block, tokens):
        raise AssertionError("it has no blocks")

    def after_block(self, index, tokens):
        del index
        return tokens + torch.linspace(-1, 1, tokens.shape[-1])


def test_it_adds_to_the_tokens_another_stream_left(tiny):
    one, found = evaluation(), []
    for order in ((), ("vace",)):  # the other stream behind it, then before it
        model = load(tiny / f"{FULL}.safetensors")
        model.points.streams["other"] = Replacing()
        for name in order:
            model.points.streams[name] = model.points.streams.pop(name)
        found.append(one(model, prepared(model, context_of()), other=object()))
    assert relative_error(*found) <= FP32_TOLERANCE
    assert (
        relative_error(found[0], one(load(tiny / f"{FULL}.safetensors"), prepared(model, context_of())))
        > 1e-2
    )


class Recording(LayoutAttention):
    def __init__(self):
        self.layouts = []

    def __call__(self, query, key, value, layout):
        self.layouts.append(layout)
        return sdpa(query, key, value)


def test_its_blocks_have_the_attention_chosen_for_their_own_numbers(model):
    attention, asked = Recording(), []

    def side(step, block):
        asked.append((step, block))
        return attention if block == 1 else None

    context = prepared(model, context_of())
    found = evaluation()(model, context, run=run_state(side_attention_for=side), **phantom())
    assert asked == [(0, 0), (0, 1)]
    assert attention.layouts == [TokenLayout((3, 3, 5), 0)]
    plain = evaluation()(model, context, **phantom())
    assert relative_error(found, plain) <= FP32_TOLERANCE


def test_a_forward_touches_tensors_of_its_own_device_only(tiny):
    """On the meta device, where mixing two is an error."""
    meta = torch.device("meta")
    model = load(tiny / f"{FULL}.safetensors").to(meta)
    setup = replace(setup_of(model, leading_frames=1), device=meta)
    one = evaluation(1)
    run = run_state(row_chunks=3)
    with torch.inference_mode():
        model.prepare_run(run, [TIMESTEP], [one.conditioning({})])
    context = context_of(references=1).prepared(setup)
    velocity = replace(one, latent=one.latent.to(meta))(model, context, run=run)
    assert velocity.device == meta
