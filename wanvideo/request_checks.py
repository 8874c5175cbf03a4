"""Whether a model can serve the inputs of a request, said before any weight is moved."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from .conditioning.conditioning import FamilyInput
from .conditioning.text import TextEmbeds
from .errors import InputError
from .sampling.filters import Filter
from .sampling.guidance import Guidance
from .transformer.config import WanConfig
from .transformer.model import WanTransformer

log = logging.getLogger(__name__)

PAIR = 2  # passes a filter compares


def check_inputs(model: WanTransformer, inputs: Mapping[str, FamilyInput]) -> None:
    """Refuse inputs the model has no weights for.

    Raises:
        InputError: it names the input and what the model lacks.
    """
    known = model.accepted_inputs()
    for name, value in inputs.items():
        if name in known or value.is_optional or not value.uses_model:
            continue
        needs = value.needs or "a model of that family, or its extra model file"
        raise InputError(
            "image_embeds",
            f"they carry an input for {name}, and this model has no weights for it: it needs {needs}",
        )


def say_unused(model: WanTransformer, inputs: Mapping[str, FamilyInput]) -> None:
    """Say which optional inputs this model leaves out, and which it would use and is not given."""
    known = model.accepted_inputs()
    for name, value in inputs.items():
        if value.is_optional and value.uses_model and name not in known:
            log.info("the model has no use for the input %r; it is left out", name)
    for name, part in model.points.context.items():
        if part.when_missing and name not in inputs:
            log.warning("%s", part.when_missing)


def check_channels(model: WanTransformer, inputs: Mapping[str, FamilyInput]) -> None:
    """Refuse a model whose input channels nobody fills, or whose image or control input is missing.

    Raises:
        InputError: it says what to connect.
    """
    config, parts = model.config, model.points.channels
    for name, part in parts.items():
        if part.required and name not in inputs:
            raise InputError("image_embeds", part.required)
    missing = config.in_channels - config.out_channels - sum(part.width for part in parts.values())
    if missing:
        raise InputError(
            "image_embeds",
            f"this model takes {config.in_channels} channels, and nothing here gives {abs(missing)} of them; "
            "models of its family are not supported by this version",
        )


def check_filters(filters: Sequence[Filter], guidance: Guidance) -> None:
    """Refuse filters on guidance of more passes than the two they compare.

    Raises:
        InputError: it names the filters and the passes.
    """
    comparing = [type(each).__name__ for each in filters if type(each).pair is not Filter.pair]
    if comparing and len(guidance.passes) > PAIR:
        raise InputError(
            "experimental_args",
            f"{', '.join(comparing)} compares the passes with and without the prompt, and this guidance has "
            f"{len(guidance.passes)} passes ({', '.join(guidance.passes)}); turn it off, or set the guidance "
            "scale of the other condition to 1",
        )


def check_text(config: WanConfig, text: TextEmbeds | None) -> None:
    """Refuse text of another encoder.

    Raises:
        InputError: it names both widths.
    """
    if text is None:
        return
    for rows in (*text.prompt_embeds, *text.negative_prompt_embeds):
        if rows.ndim != 2 or rows.shape[1] != config.text_width:
            raise InputError(
                "text_embeds",
                f"the text rows have width {rows.shape[-1]}, this model expects {config.text_width}; "
                "encode the prompt with the text encoder that belongs to the model (UMT5-XXL)",
            )
