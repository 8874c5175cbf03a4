"""The guidance passes of a request: which conditions each of them has, and their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .conditioning.conditioning import Conditioning, FamilyInput
from .conditioning.geometry import VideoGeometry
from .conditioning.text import TextEmbeds
from .errors import InputError
from .sampling.guidance import TEXT_RANK, Guidance, GuidanceLevel, level_guidance, per_step

TEXT = "text"


def levels_of(
    cfg: float | Sequence[float], inputs: Mapping[str, FamilyInput], steps: int
) -> tuple[GuidanceLevel, ...]:
    """The levels of a run in ascending rank: the text, and what inputs ask for.

    Args:
        cfg: scale of the text, one or a list per step.
        inputs: by name.
        steps: of the run.
    """
    text = GuidanceLevel(TEXT, per_step("cfg", cfg, steps), TEXT_RANK)
    own = {name: value.guidance(steps) for name, value in inputs.items()}
    wanted = [level for level in own.values() if level is not None and not level.is_neutral]
    return tuple(sorted([*wanted, text], key=lambda level: level.rank))


def conditions(
    levels: Sequence[GuidanceLevel],
    *,
    geometry: VideoGeometry,
    text: TextEmbeds | None,
    inputs: Mapping[str, FamilyInput],
) -> dict[str, Conditioning]:
    """The conditioning of every pass of :func:`guidance_of`, by name."""
    names = level_guidance(levels).passes
    passes = {}
    for count, name in enumerate(names):
        on = {level.name for level in levels[:count]}
        off = {level.name for level in levels[count:]}
        is_negative = TEXT not in on
        variants = {
            key: value.variant(is_on=key not in off, is_negative=is_negative) for key, value in inputs.items()
        }
        kept = {key: value for key, value in variants.items() if value is not None}
        passes[name] = Conditioning(geometry, text=_prompts(text, is_negative=is_negative), inputs=kept)
    return passes


def guidance_of(levels: Sequence[GuidanceLevel], passes: Mapping[str, Conditioning]) -> Guidance:
    """Weights of the passes; passes of equal conditions are evaluated once.

    Raises:
        InputError: a pass with the negative prompt counts, and there is none.
    """
    guidance = level_guidance(levels)
    prompt = passes[guidance.passes[-1]].text
    for step in range(guidance.steps):
        if prompt and any(not passes[name].text for name in guidance.active(step)):
            raise InputError(
                "text_embeds",
                "no negative prompt was encoded, and cfg is not 1; connect a negative prompt "
                "(an empty one will do) or set cfg to 1",
            )
    return guidance.sharing_equal(lambda name: _identity(passes[name]))


def used_passes(guidance: Guidance) -> list[str]:
    """Names of the passes that count in some step."""
    return sorted({name for step in range(guidance.steps) for name in guidance.active(step)})


def _prompts(text: TextEmbeds | None, *, is_negative: bool) -> tuple[Tensor, ...]:
    if text is None:
        return ()
    return tuple(text.negative_prompt_embeds if is_negative else text.prompt_embeds)


def _identity(conditioning: Conditioning) -> tuple[object, ...]:
    """Equal for passes whose conditions are the same objects."""
    prompts = tuple(id(prompt) for prompt in conditioning.text)
    return prompts, tuple((name, id(value)) for name, value in conditioning.inputs.items())
