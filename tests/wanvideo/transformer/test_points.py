"""Every extension point, filled by a small family: it has its effect, and inactive it changes nothing."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from comfyui_wanvideo.wanvideo.transformer.context import walk_resident
from comfyui_wanvideo.wanvideo.transformer.points import ExtensionError, ExtensionPoints
from comfyui_wanvideo.wanvideo.transformer.rope import grid_positions
from comfyui_wanvideo.wanvideo.transformer.segments import Segment

from .conftest import CONFIG, forward, random_transformer, relative_error, run_state

NAME = "example"
WITH_IMAGE_BRANCH = replace(CONFIG, has_image_branch=True)


@dataclass(frozen=True)
class ExampleInput:
    """A family's input: one number."""

    strength: float = 1.0


def pattern(strength):
    """Not constant over the channels: a layer norm removes a constant."""
    return strength * torch.linspace(-1, 1, CONFIG.dim)


@dataclass(frozen=True)
class AddedChannel:
    """One channel of a number."""

    rank: int = 0
    value: float = 0.0
    width: int = 1
    required: str = ""

    def channels(self, family_input, latent):
        del family_input
        return torch.full_like(latent[:, :1], self.value)


class AddedSegment:
    def segments(self, family_input, grid, timesteps):
        del family_input, timesteps
        _, rows, columns = grid
        generator = torch.Generator().manual_seed(5)
        tokens = torch.randn(1, rows * columns, CONFIG.dim, generator=generator)
        positions = grid_positions((1, rows, columns), (-1, 0, 0))
        return [Segment(tokens, positions, (0.0,), "reference")], []


class AddedEmbed:
    embedder = None

    def prepare(self, family_input, run):
        del family_input, run

    def residual(self, family_input, tokens, run):
        del run
        return pattern(family_input.strength).expand_as(tokens)


class AddedTime:
    def edit(self, family_input, embedding):
        return embedding + pattern(family_input.strength)


class AddedKeys:
    def project(self, query, key, value, context):
        del context
        return query, torch.cat([key, key[:, :1]], 1), torch.cat([value, value[:, :1] * 3], 1)

    def attended(self, output, query, context):
        del query, context
        return output


class AddedStream:
    blocks: ClassVar = {}

    def begin(self, family_input, start):
        del start
        return StreamSession(family_input.strength)


class StreamSession:
    def __init__(self, strength):
        self.strength = strength

    def before_block(self, index, tokens):
        del index
        return tokens

    def after_block(self, index, tokens):
        return tokens + pattern(self.strength) if index == 0 else tokens


class OtherEmbedder:
    def __init__(self, model):
        self.model = model

    def embed(self, latent):
        return self.model.patch_embedding(latent.flip(-1))


class AddedContext:
    embedder = None

    def rows(self, family_input):
        del family_input
        return torch.randn(1, 5, CONFIG.dim, generator=torch.Generator().manual_seed(6))


class AddedSublayer(torch.nn.Module):
    def forward(self, tokens, family_input, context):
        del context
        return pattern(family_input.strength).expand_as(tokens)


def fill(model, point):
    points = model.points
    if point == "segments":
        points.segments[NAME] = AddedSegment()
    elif point == "embed":
        points.embed[NAME] = AddedEmbed()
    elif point == "embedder":
        points.set_embedder(NAME, OtherEmbedder(model))
    elif point == "context":
        points.context[NAME] = AddedContext()
    elif point == "time":
        points.time[NAME] = AddedTime()
    elif point == "attention":
        points.attention[NAME] = AddedKeys()
    elif point == "streams":
        points.streams[NAME] = AddedStream()
    elif point == "sublayer":
        model.blocks[1].sublayers[NAME] = AddedSublayer()


POINTS = ["segments", "embedder", "embed", "time", "context", "attention", "streams", "sublayer"]


def forward_with(model, inputs, family_inputs):
    conditioning = replace(inputs.conditioning, inputs=family_inputs)
    with torch.inference_mode():
        return model(inputs.latent, [inputs.timestep], conditioning, run_state())


@pytest.mark.parametrize("point", POINTS)
def test_a_filled_point_changes_the_prediction(inputs, point):
    plain = forward(random_transformer(WITH_IMAGE_BRANCH), inputs)
    model = random_transformer(WITH_IMAGE_BRANCH)
    fill(model, point)
    assert relative_error(forward_with(model, inputs, {NAME: ExampleInput()}), plain) > 1e-3


@pytest.mark.parametrize("point", POINTS)
def test_a_filled_point_without_its_input_changes_nothing(inputs, point):
    plain = forward(random_transformer(WITH_IMAGE_BRANCH), inputs)
    model = random_transformer(WITH_IMAGE_BRANCH)
    fill(model, point)
    assert torch.equal(forward_with(model, inputs, {}), plain)


def test_a_rule_that_only_records_sees_every_block_and_changes_nothing(inputs):
    class Recorder:
        def __init__(self):
            self.keys = {}

        def project(self, query, key, value, context):
            self.keys[context.block_index] = key.clone()
            return query, key, value

        def attended(self, output, query, context):
            del query, context
            return output

    model, recorder = random_transformer(), Recorder()
    plain = forward(model, inputs)
    model.points.attention[NAME] = recorder
    assert torch.equal(forward_with(model, inputs, {NAME: ExampleInput()}), plain)
    assert sorted(recorder.keys) == list(range(CONFIG.layers))
    assert recorder.keys[0].shape == (1, 3 * 3 * 5, CONFIG.heads, 128)


def test_a_segment_nobody_sees_changes_nothing_but_rounding(inputs):
    class Unseen(AddedSegment):
        def segments(self, family_input, grid, timesteps):
            (first,), after = super().segments(family_input, grid, timesteps)
            return [replace(first, sees=frozenset({"reference"}))], after

    model = random_transformer()
    model.points.segments[NAME] = Unseen()
    seen = forward_with(model, inputs, {NAME: ExampleInput()})

    original = type(model)._embed

    def hidden(self, latent, timesteps, conditioning, grid, run):
        tokens, sequence = original(self, latent, timesteps, conditioning, grid, run)
        spans = tuple(replace(s, sees=frozenset({s.role})) for s in sequence.spans)
        return tokens, replace(sequence, spans=spans)

    type(model)._embed = hidden
    try:
        unseen = forward_with(model, inputs, {NAME: ExampleInput()})
    finally:
        type(model)._embed = original
    plain = forward(random_transformer(), inputs)
    assert relative_error(seen, plain) > 1e-3
    assert relative_error(unseen, plain) < 1e-5


def test_channels_are_joined_after_the_noise_in_rank_order(inputs):
    model = random_transformer(replace(CONFIG, in_channels=18))
    model.points.channels["late"] = AddedChannel(2, 2.0)
    model.points.channels["early"] = AddedChannel(1, 1.0)
    seen = []
    handle = model.patch_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    forward(model, inputs)
    handle.remove()
    assert torch.equal(seen[0][:, :16], inputs.latent)
    assert seen[0][0, 16:, 0, 0, 0].tolist() == [1.0, 2.0]


def test_two_families_that_replace_the_patch_embedding_are_refused_by_name():
    points = ExtensionPoints()
    embedder: Any = object()
    points.set_embedder("SteadyDancer", embedder)
    with pytest.raises(ExtensionError, match="SCAIL and SteadyDancer"):
        points.set_embedder("SCAIL", embedder)


class SideBlock(torch.nn.Module):
    """A block of a side stream: remembers where it ran."""

    def forward(self, order, index):
        order.append(("side", index))


class StreamWithBlocks:
    """Two blocks of its own, before blocks 0 and 1, and a record of all that happens."""

    def __init__(self, *places, strength=0.0):
        self.blocks = {place: SideBlock() for place in places or (0, 1)}
        self.order = []
        self.strength = strength

    def begin(self, family_input, start):
        del family_input
        self.order.append(("begin", start.latent.shape[1]))
        return self

    def run_block(self, index, block, tokens):
        block(self.order, index)
        return tokens + pattern(self.strength)

    def before_block(self, index, tokens):
        self.order.append(("before", index))
        return tokens

    def after_block(self, index, tokens):
        self.order.append(("after", index))
        return tokens


def test_the_blocks_of_a_side_stream_run_before_the_block_they_stand_before(inputs):
    model = random_transformer()
    stream = StreamWithBlocks()
    model.points.streams[NAME] = stream
    forward_with(model, inputs, {NAME: ExampleInput()})
    per_block = [[("side", i)] * (i < 2) + [("before", i), ("after", i)] for i in range(CONFIG.layers)]
    assert stream.order == [
        ("begin", CONFIG.in_channels),
        *(event for events in per_block for event in events),
    ]


def test_a_block_of_a_side_stream_may_run_behind_the_last_block(inputs):
    model = random_transformer()
    stream = StreamWithBlocks(CONFIG.layers)
    model.points.streams[NAME] = stream
    forward_with(model, inputs, {NAME: ExampleInput()})
    assert stream.order[-2:] == [("after", CONFIG.layers - 1), ("side", CONFIG.layers)]


@pytest.mark.parametrize("place", [1, CONFIG.layers])
def test_what_a_block_of_a_side_stream_makes_of_the_tokens_goes_on(inputs, place):
    model = random_transformer()
    plain = forward(model, inputs)
    model.points.streams[NAME] = StreamWithBlocks(place, strength=1.0)
    assert relative_error(forward_with(model, inputs, {NAME: ExampleInput()}), plain) > 1e-3


def test_the_walk_is_given_the_blocks_of_side_streams_in_the_order_of_execution():
    model = random_transformer()
    model.points.streams[NAME] = StreamWithBlocks()
    kinds = [stage.stream for stage in model.stages()]
    assert kinds[:4] == [NAME, None, NAME, None]


def test_a_side_stream_without_input_is_skipped_by_the_walk(inputs):
    model = random_transformer()
    stream = StreamWithBlocks()
    model.points.streams[NAME] = stream
    skipped = []

    def walk(blocks, skip):
        skipped.extend(skip)
        return walk_resident(blocks, skip)

    forward(model, inputs, walk=walk)
    assert (skipped, stream.order) == ([0, 2], [])


def test_two_families_that_give_the_same_channels_are_refused():
    points = ExtensionPoints()
    points.add_channels("image", AddedChannel())
    with pytest.raises(ExtensionError, match="channels of the input 'image'"):
        points.add_channels("image", AddedChannel())


def test_values_are_shared_by_the_passes_over_one_latent_and_made_anew_for_the_next():
    run, latent = run_state(), torch.zeros(1)
    made = []

    def evaluate(latent, timestep):
        run.begin_evaluation(latent, timestep, 0)
        return run.evaluation_memo("key", lambda: made.append(timestep) or len(made))

    assert [evaluate(latent, 5.0), evaluate(latent, 5.0), evaluate(latent, 4.0)] == [1, 1, 2]
    assert evaluate(latent.clone(), 4.0) == 3


def test_a_residual_that_serves_all_steps_is_computed_when_the_run_is_prepared(inputs):
    class Computed(AddedEmbed):
        def __init__(self):
            self.embedder = torch.nn.Linear(1, 1)
            self.made = []

        def prepare(self, family_input, run):
            run.memo("pattern", lambda: self.made.append(family_input) or pattern(family_input.strength))

        def residual(self, family_input, tokens, run):
            self.prepare(family_input, run)
            return run.memo("pattern", lambda: None).expand_as(tokens)

    model, point, run = random_transformer(), Computed(), run_state()
    model.points.embed[NAME] = point
    conditioning = replace(inputs.conditioning, inputs={NAME: ExampleInput()})
    with torch.inference_mode():
        model.prepare_run(run, [inputs.timestep], [conditioning])
        before = len(point.made)
        model(inputs.latent, [inputs.timestep], conditioning, run)
    assert (before, len(point.made)) == (1, 1)
    assert point.embedder in model.embedders()
