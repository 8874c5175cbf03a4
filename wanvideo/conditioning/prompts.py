"""The prompt language: cleaning, several prompts in one text, and token weights.

A prompt is split first (`a | b`, or `[1] a [2] b` for EchoShot), then each part is cleaned the way Wan's
authors clean, then its `(text:1.2)` weights are taken out.
"""

import html
import re
from collections import Counter
from dataclasses import dataclass

from ..errors import InputError

MIN_SHOTS, MAX_SHOTS = 2, 6

_SHOT = re.compile(r"\[\d+\]")
_SEPARATOR = re.compile(r"(?<!\\)\|")
_WHITESPACE = re.compile(r"\s+")
_WEIGHT = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")
_TIME_OR_RATIO = re.compile(r"\d:\d+\s*$")
_ESCAPED = {"\\(": "(", "\\)": ")"}


@dataclass(frozen=True)
class PromptList:
    """The prompts of one text field.

    Args:
        prompts: at least one, in the order they take the video's frames.
        is_echoshot: the prompts are numbered shots of an EchoShot model.
    """

    prompts: tuple[str, ...]
    is_echoshot: bool = False


@dataclass(frozen=True)
class WeightSpan:
    """Characters `start` to `stop` (exclusive) of a prompt and their weight, never 1."""

    start: int
    stop: int
    weight: float


@dataclass(frozen=True)
class WeightedPrompt:
    """A prompt without its markup, and the weights of parts of it.

    Args:
        text: what the tokenizer sees.
        spans: in order, without overlap; characters outside them have weight 1.
    """

    text: str
    spans: tuple[WeightSpan, ...] = ()

    def weight(self, start: int, stop: int) -> float:
        """The weight of the token at characters `start` to `stop`: that of most of its characters.

        The space before a word belongs to the word: it does not count, and alone it has the word's weight.
        """
        inked = [index for index in range(start, stop) if not self.text[index].isspace()]
        weights = Counter(self._at(index) for index in inked or [stop])
        return weights.most_common(1)[0][0]

    def _at(self, index: int) -> float:
        return next((span.weight for span in self.spans if span.start <= index < span.stop), 1.0)


def clean_prompt(text: str) -> str:
    """Repair broken characters, decode HTML entities (also doubly encoded), collapse whitespace.

    Source: `clean="whitespace"` of Wan's tokenizer, `prompt_clean` of diffusers.
    """
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return _WHITESPACE.sub(" ", text).strip()


def split_prompts(text: str) -> PromptList:
    r"""Split a text field into its prompts; they are neither cleaned nor parsed yet.

    `[1] ... [2] ...` are the shots of an EchoShot model, `a | b` several prompts for one video, `\|` is an
    ordinary bar. Empty parts are dropped; an empty text is one empty prompt.

    Raises:
        InputError: more than 6 shots, or fewer than 2.
    """
    if "[1]" in text and "[2]" in text:
        shots = _filled(_SHOT.split(text))
        if not MIN_SHOTS <= len(shots) <= MAX_SHOTS:
            raise InputError(
                "positive_prompt",
                f"[1] ... [2] ... marks {len(shots)} shots; EchoShot makes {MIN_SHOTS} to {MAX_SHOTS}",
            )
        return PromptList(shots, is_echoshot=True)
    parts = tuple(part.replace("\\|", "|") for part in _filled(_SEPARATOR.split(text)))
    return PromptList(parts or ("",))


def parse_weights(text: str) -> WeightedPrompt:
    r"""Take the weights out of a cleaned prompt.

    `(text:1.2)` weights the tokens of `text`; inside another one the inner number counts. Parentheses without
    a number, and times or ratios such as `(16:9)`, are ordinary text; so are `\(` and `\)`, always.
    """
    weights: list[float | None] = [1.0] * len(text)  # None: markup, not part of the text
    for escaped in re.finditer(r"\\[()]", text):
        weights[escaped.start()] = None
    for start, stop in _parentheses(text):  # outer ones come first, so inner numbers overwrite theirs
        weight = _WEIGHT.search(text, start + 1, stop)
        if weight is None or not text[start + 1 : weight.start()].strip():
            continue
        if _TIME_OR_RATIO.search(text, start + 1, stop):
            continue
        inside = range(start + 1, weight.start())
        for index in inside:
            weights[index] = None if weights[index] is None else float(weight.group(1))
        for index in (start, *range(weight.start(), stop + 1)):
            weights[index] = None
    return _collapsed(
        [(char, weight) for char, weight in zip(text, weights, strict=True) if weight is not None]
    )


def _filled(parts: list[str]) -> tuple[str, ...]:
    return tuple(part.strip() for part in parts if part.strip())


def _parentheses(text: str) -> list[tuple[int, int]]:
    """Positions of matching `(` and `)`, by opening position; escaped and unmatched ones are left out."""
    opened: list[int] = []
    pairs: list[tuple[int, int]] = []
    for index, char in enumerate(text):
        if text[index - 1 : index + 1] in _ESCAPED:
            continue
        if char == "(":
            opened.append(index)
        elif char == ")" and opened:
            pairs.append((opened.pop(), index))
    return sorted(pairs)


def _collapsed(chars: list[tuple[str, float]]) -> WeightedPrompt:
    """Join weighted characters, without the spaces that removed markup has left doubled."""
    kept: list[tuple[str, float]] = []
    for char, weight in chars:
        if char == " " and (not kept or kept[-1][0] == " "):
            continue
        kept.append((char, weight))
    if kept and kept[-1][0] == " ":
        kept.pop()
    spans: list[WeightSpan] = []
    for index, (_, weight) in enumerate(kept):
        if spans and spans[-1].stop == index and spans[-1].weight == weight:
            spans[-1] = WeightSpan(spans[-1].start, index + 1, weight)
        elif weight != 1.0:
            spans.append(WeightSpan(index, index + 1, weight))
    return WeightedPrompt("".join(char for char, _ in kept), tuple(spans))
