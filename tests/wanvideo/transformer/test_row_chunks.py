"""A block split into row chunks equals the whole one, whatever the numbers and whatever takes part."""

from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.transformer.block import WanBlock
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import CONFIG, Inputs, forward, random_transformer, relative_error, run_state
from .test_points import NAME, POINTS, WITH_IMAGE_BRANCH, AddedSegment, ExampleInput, fill

FP32_TOLERANCE = 1e-6
BF16_TOLERANCE = 8e-3  # chunks change how a matrix product is summed; its result is rounded to 8 bits


@pytest.fixture(scope="module")
def low_model():
    """The model as the loader stores it in bfloat16."""
    model = random_transformer()
    for module in model.modules():
        if getattr(module, "parameter_dtype", "compute") == "compute":
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.bfloat16()
    return model


def video(frames, rows, columns, batch=1):
    generator = torch.Generator().manual_seed(frames + rows + columns)
    latent = torch.randn(batch, 16, frames, 2 * rows, 2 * columns, generator=generator)
    return Inputs(latent, 637.25, torch.randn(11, CONFIG.text_width, generator=generator))


sizes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 7))


@settings(max_examples=25)
@given(size=sizes, row_chunks=st.integers(2, 40), per_frame=st.booleans())
def test_chunks_equal_the_whole_in_float32(model, size, row_chunks, per_frame):
    inputs = video(*size)
    timesteps = [100.0 * frame for frame in range(size[0])] if per_frame else [637.25]
    with torch.inference_mode():
        whole, split = (
            model(inputs.latent, timesteps, inputs.conditioning, run_state(row_chunks=n))
            for n in (1, row_chunks)
        )
    assert relative_error(split, whole) <= FP32_TOLERANCE


@settings(max_examples=10)
@given(size=sizes, row_chunks=st.integers(2, 40))
def test_chunks_equal_the_whole_within_rounding_in_bfloat16(low_model, size, row_chunks):
    inputs = video(*size)
    error = relative_error(forward(low_model, inputs, row_chunks=row_chunks), forward(low_model, inputs))
    assert error <= BF16_TOLERANCE


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("prompts", [0, 1, 2, 3])
def test_several_prompts_and_videos(model, batch, prompts):
    inputs = video(5, 3, 3, batch)
    text = tuple(torch.randn(4 + i, CONFIG.text_width) for i in range(prompts))
    conditioning = replace(inputs.conditioning, text=text)
    with torch.inference_mode():
        whole, split = (model(inputs.latent, [500.0], conditioning, run_state(row_chunks=n)) for n in (1, 4))
    assert relative_error(split, whole) <= FP32_TOLERANCE


@pytest.mark.parametrize("point", POINTS)
def test_every_extension_point(inputs, point):
    model = random_transformer(WITH_IMAGE_BRANCH)
    fill(model, point)
    conditioning = replace(inputs.conditioning, inputs={NAME: ExampleInput()})
    with torch.inference_mode():
        whole, split = (model(inputs.latent, [500.0], conditioning, run_state(row_chunks=n)) for n in (1, 4))
    assert relative_error(split, whole) <= FP32_TOLERANCE


@pytest.mark.parametrize("row_chunks", [1, 3])
def test_a_block_overwrites_the_tokens_it_is_given(model, inputs, row_chunks):
    seen = []

    class Watching(WanBlock):
        def forward(self, x, context):
            result = super().forward(x, context)
            seen.append(result.data_ptr() == x.data_ptr())
            return result

    watched = random_transformer()
    for block in watched.blocks:
        block.__class__ = Watching
    forward(watched, inputs, row_chunks=row_chunks)
    assert seen == [True] * CONFIG.layers


@pytest.mark.parametrize("row_chunks", [1, 5])
def test_each_weight_is_prepared_once_per_block(inputs, row_chunks):
    class Watched(WanLinear):
        def prepare(self, dtype):
            prepared.append(id(self))
            return super().prepare(dtype)

    model, prepared = random_transformer(), []
    for layer in model.blocks.modules():
        if isinstance(layer, WanLinear):
            layer.__class__ = Watched
    forward(model, inputs, row_chunks=row_chunks)
    assert len(prepared) == len(set(prepared)) == 10 * CONFIG.layers
    assert sorted(prepared) == sorted(set(prepared))


def test_the_latent_and_the_text_stay_as_they_were(model, inputs):
    latent, text = inputs.latent.clone(), inputs.text.clone()
    forward(model, inputs, row_chunks=3)
    assert (torch.equal(inputs.latent, latent), torch.equal(inputs.text, text)) == (True, True)


def test_segments_with_restricted_visibility(inputs):
    class Alone(AddedSegment):
        def segments(self, family_input, grid, timesteps):
            (first,), after = super().segments(family_input, grid, timesteps)
            return [replace(first, sees=frozenset({"reference"}))], after

    model = random_transformer()
    model.points.segments[NAME] = Alone()
    conditioning = replace(inputs.conditioning, inputs={NAME: ExampleInput()})
    with torch.inference_mode():
        whole, split = (model(inputs.latent, [500.0], conditioning, run_state(row_chunks=n)) for n in (1, 4))
    assert relative_error(split, whole) <= FP32_TOLERANCE
