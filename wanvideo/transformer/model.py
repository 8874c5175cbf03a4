"""The Wan diffusion transformer (Wan2.1, ``wan/modules/model.py``; arXiv:2503.20314)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as SequenceOf
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention.registry import TokenLayout, bind
from ..conditioning.conditioning import Conditioning
from .block import WanBlock
from .config import WanConfig
from .context import BlockContext, RunState, TextPart
from .feed_forward import FeedForward
from .modulation import TimeEmbedding, TimeProjection, TimeTable, sinusoidal_embedding
from .patches import Head, PatchEmbedding, unpatchify
from .points import ContextPart, ExtensionPoints, Session, Stage, StreamStart, active
from .rope import grid_positions, rope_table
from .segments import MAIN, Segment, Sequence, join


class WanTransformer(nn.Module):
    """Predicts the velocity ``noise - clean`` of a noisy latent.

    Args:
        config: sizes, read from the checkpoint.
    """

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config.in_channels, config.dim)
        self.text_embedding = FeedForward(config.text_width, config.dim, config.dim)
        self.time_embedding = TimeEmbedding(config.frequency_width, config.dim)
        self.time_projection = TimeProjection(config.dim)
        self.blocks = nn.ModuleList(WanBlock(config) for _ in range(config.layers))
        self.head = Head(config.dim, config.out_channels, config.epsilon)
        self.points = ExtensionPoints()

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the token stream: that of the block's biases, which are never quantised."""
        first = self.blocks[0]
        assert isinstance(first, WanBlock)
        assert first.self_attn.q.bias is not None
        return first.self_attn.q.bias.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.modulation.device

    def accepted_inputs(self) -> set[str]:
        """Names of the inputs that can take part: a point or a sub-layer of that name is there."""
        sublayers = (block.sublayers for block in self.blocks if isinstance(block, WanBlock))
        return self.points.names().union(*(layers.keys() for layers in sublayers))

    def stages(self) -> list[Stage]:
        """The blocks in the order of execution, those of side streams between the model's own."""
        return self.points.stages(list(self.blocks))

    def embedders(self) -> list[nn.Module]:
        """Modules that are used once per run, when it is prepared."""
        parts = [part.embedder for part in (*self.points.context.values(), *self.points.embed.values())]
        own = [self.text_embedding, self.time_embedding, self.time_projection]
        return [*own, *(part for part in parts if part is not None)]

    def forward(
        self,
        latent: Tensor,
        timesteps: SequenceOf[float],
        conditioning: Conditioning,
        run: RunState,
    ) -> Tensor:
        """One forward.

        Args:
            latent: ``[B, C, T, H, W]``, normalised, noisy.
            timesteps: one value (0 to 1000), or one per latent frame; 0 is a clean frame.
            conditioning: text and family inputs of this pass.
            run: options and values shared by the forwards of a run.

        Returns:
            Velocity ``[B, C_out, T, H, W]`` in float32.
        """
        grid = self._grid(latent)
        channels = self.points.channel_places(latent.shape[1])
        latent = self._with_channels(latent, conditioning, list(channels))
        tokens, sequence = self._embed(latent, tuple(timesteps), conditioning, grid, run)
        context = self._context(sequence, conditioning, grid, run)
        sessions = {
            name: stream.begin(conditioning.inputs[name], StreamStart(latent, tokens, context, run, channels))
            for name, stream in self.points.streams.items()
            if name in conditioning.inputs
        }
        tokens = self._run_blocks(tokens, context, sessions, TokenLayout(grid, sequence.main.start), run)
        main = sequence.main
        time = context.time.for_slice(main.start, main.stop)
        return unpatchify(self.head(tokens[:, main.start : main.stop], time), grid)

    def _run_blocks(
        self,
        tokens: Tensor,
        context: BlockContext,
        sessions: Mapping[str, Session],
        layout: TokenLayout,
        run: RunState,
    ) -> Tensor:
        stages = self.stages()
        idle = [n for n, stage in enumerate(stages) if stage.stream and stage.stream not in sessions]
        with closing(run.options.walk([stage.block for stage in stages], idle)) as walk:
            for number, block in walk:
                run.options.check()
                stage = stages[number]
                if stage.stream is not None:
                    tokens = sessions[stage.stream].run_block(stage.index, block, tokens)
                    continue
                chosen = run.options.attention_for(run.step, stage.index) or context.attention
                for session in sessions.values():
                    tokens = session.before_block(stage.index, tokens)
                attention = bind(chosen, layout)
                tokens = block(tokens, replace(context, self_attention=attention, block_index=stage.index))
                for session in sessions.values():
                    tokens = session.after_block(stage.index, tokens)
        return tokens

    def _with_channels(self, latent: Tensor, conditioning: Conditioning, names: SequenceOf[str]) -> Tensor:
        parts, inputs = self.points.channels, conditioning.inputs
        size = (latent.shape[0], -1, *latent.shape[2:])
        joined = [parts[name].channels(inputs.get(name), latent).to(latent) for name in names]
        if not joined:
            return latent
        return torch.cat([latent, *(channels.expand(size) for channels in joined)], dim=1)

    @staticmethod
    def _grid(latent: Tensor) -> tuple[int, int, int]:
        return latent.shape[2], latent.shape[3] // 2, latent.shape[4] // 2

    def _embed(
        self,
        latent: Tensor,
        timesteps: tuple[float, ...],
        conditioning: Conditioning,
        grid: tuple[int, int, int],
        run: RunState,
    ) -> tuple[Tensor, Sequence]:
        inputs = conditioning.inputs
        embedder = self.points.embedder
        if embedder is not None and embedder[0] in inputs:
            tokens = embedder[1].embed(latent)
        else:
            tokens = self.patch_embedding(latent)
        for point, family_input in active(self.points.embed, inputs):
            tokens = tokens.add_(point.residual(family_input, tokens, run))  # in place: it is of their size
        # A convolution leaves the channels outermost; blocks work on whole tokens, in place. Two calls,
        # since `to` keeps the layout when it has no dtype to change.
        tokens = tokens.flatten(1, 3).to(self.compute_dtype, memory_format=torch.contiguous_format)
        main = Segment(tokens.contiguous(), grid_positions(grid), timesteps, role=MAIN)
        del tokens
        before: list[Segment] = []
        after: list[Segment] = []
        for point, family_input in active(self.points.segments, inputs):
            first, last = point.segments(family_input, grid, timesteps)
            before.extend(first)
            after.extend(last)
        return join([*before, main, *after])

    def _context(
        self,
        sequence: Sequence,
        conditioning: Conditioning,
        grid: tuple[int, int, int],
        run: RunState,
    ) -> BlockContext:
        options, device = run.options, self.device
        return BlockContext(
            time=self._time(sequence, conditioning, run),
            rope=run.rope_table(
                sequence.positions, lambda: rope_table(sequence.positions, options.rope, device)
            ),
            text=self._text(sequence, conditioning, grid[0], run),
            image=self._image(sequence, conditioning, grid[0], run),
            spans=sequence.spans,
            options=options,
            attention=options.attention,
            self_attention=options.attention,
            rules=tuple(rule for name, rule in self.points.attention.items() if name in conditioning.inputs),
            inputs=conditioning.inputs,
        )

    def prepare_run(self, run: RunState, timesteps: Iterable[float], passes: Iterable[Conditioning]) -> None:
        """Embed the timesteps and texts of a run at once, before its first forward.

        A forward embeds what it does not find, so this changes no result beyond rounding.
        ``run.options.on_prepared`` is called when no forward of these passes will need an embedder.

        Args:
            run: where the forwards look the rows up.
            timesteps: 0 to 1000.
            passes: what the forwards will be conditioned on.
        """
        passes = list(passes)
        distinct = tuple(dict.fromkeys(timesteps))
        embeddings = self._embed_times(distinct)
        for value, embedding, projection in zip(
            distinct, embeddings, self._project_times(embeddings), strict=True
        ):
            run.memo(("time", value), lambda rows=(embedding, projection): rows)
        for each in passes:
            for prompt in each.text:
                self._prompt_rows(prompt, run)
            self._picture_rows(each, run)
            for point, family_input in active(self.points.embed, each.inputs):
                point.prepare(family_input, run)
        if not any(active(self.points.time, each.inputs) for each in passes):
            run.options.on_prepared()

    def _time(self, sequence: Sequence, conditioning: Conditioning, run: RunState) -> TimeTable:
        def embed(timestep: float) -> tuple[Tensor, Tensor]:
            embedding = self._embed_times((timestep,))
            return embedding[0], self._project_times(embedding)[0]

        rows = [run.memo(("time", t), lambda t=t: embed(t)) for t in sequence.timesteps]
        embedding, projection = (torch.stack(parts) for parts in zip(*rows, strict=True))
        edits = active(self.points.time, conditioning.inputs)
        for point, family_input in edits:
            embedding = point.edit(family_input, embedding)
        if edits:
            projection = self._project_times(embedding)
        return TimeTable(embedding, projection, runs=sequence.runs)

    def _embed_times(self, timesteps: SequenceOf[float]) -> Tensor:
        values = torch.tensor(timesteps, dtype=torch.float64, device="cpu")
        features = sinusoidal_embedding(values, self.config.frequency_width)
        return _where_the_weights_are(self.time_embedding, features).to(self.device)

    def _project_times(self, embedding: Tensor) -> Tensor:
        projected = _where_the_weights_are(self.time_projection, embedding).to(self.device)
        return projected.unflatten(-1, (6, -1))

    def _text(
        self, sequence: Sequence, conditioning: Conditioning, frames: int, run: RunState
    ) -> tuple[TextPart, ...]:
        rows = [self._prompt_rows(prompt, run) for prompt in conditioning.text]
        return shared_parts(rows, sequence, frames)

    def _prompt_rows(self, prompt: Tensor, run: RunState) -> Tensor:
        # the prompt is kept beside its rows, so that its id stays its own
        return run.memo(("text", id(prompt)), lambda: (prompt, self.embed_text(prompt)))[1]

    def embed_text(self, prompt: Tensor) -> Tensor:
        """Pad ``[L, text_width]`` with zero rows to the text length and embed it: ``[1, 512, D]``.

        The padding rows are attended like real ones; leaving them out changes the result.
        """
        rows = prompt[: self.config.text_length].to(self.compute_dtype)
        padded = F.pad(rows, (0, 0, 0, self.config.text_length - rows.shape[0]))
        return _where_the_weights_are(self.text_embedding, padded.unsqueeze(0)).to(self.device)

    def _image(
        self, sequence: Sequence, conditioning: Conditioning, frames: int, run: RunState
    ) -> tuple[TextPart, ...]:
        parts = self._picture_rows(conditioning, run)
        count = max((rows.shape[0] for rows in parts), default=0)
        pictures = [
            torch.cat([rows[number % rows.shape[0]] for rows in parts])[None] for number in range(count)
        ]
        return shared_parts(pictures, sequence, frames)

    def _picture_rows(self, conditioning: Conditioning, run: RunState) -> list[Tensor]:
        """``[P, L, D]`` of every family that has an input; each of P pictures has its share of the frames."""
        return [
            self._context_rows(part, value, run)
            for part, value in active(self.points.context, conditioning.inputs)
        ]

    def _context_rows(self, part: ContextPart, value: object, run: RunState) -> Tensor:
        def embed() -> tuple[object, Tensor]:
            # the input is kept beside its rows, so that its id stays its own
            return value, part.rows(value).to(self.device, self.compute_dtype)

        return run.memo(("context", id(value)), embed)[1]


def _where_the_weights_are(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)``; an embedder's weights may have left the device when the run was prepared."""
    return module(x.to(next(module.parameters()).device))


def shared_parts(rows: SequenceOf[Tensor], sequence: Sequence, frames: int) -> tuple[TextPart, ...]:
    """Rows ``[1, L, D]`` that share the frames of the video; the first and last have the tokens around it."""
    main = sequence.main
    per_frame = (main.stop - main.start) // frames
    parts: list[TextPart] = []
    for each, (first, last) in share_frames(rows, frames):
        start = 0 if first == 0 else main.start + first * per_frame
        stop = sequence.length if last == frames else main.start + last * per_frame
        parts.append(TextPart(each, start, stop))
    return tuple(parts)


def share_frames(prompts: SequenceOf[Tensor], frames: int) -> list[tuple[Tensor, tuple[int, int]]]:
    """Give each prompt an equal run of latent frames, the last one what is left too, as WanVideoWrapper does.

    Returns:
        ``(prompt, (first frame, one past the last))``; a prompt left without frames is not listed.
    """
    used = prompts[:frames]
    share = frames // max(1, len(used))
    bounds = [*(share * index for index in range(len(used))), frames]
    return list(zip(used, pairwise(bounds), strict=True))
