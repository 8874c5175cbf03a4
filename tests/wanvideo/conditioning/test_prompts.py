"""Cleaning, separators and weights."""

import pytest
from comfyui_wanvideo.wanvideo.conditioning.prompts import (
    PromptList,
    WeightedPrompt,
    WeightSpan,
    clean_prompt,
    parse_weights,
    split_prompts,
)
from comfyui_wanvideo.wanvideo.errors import InputError
from hypothesis import given
from hypothesis import strategies as st

MESSY = (
    "a red fox",
    "  spaces\t\tand\n\nlines  ",
    "&lt;b&gt; &amp;amp; &quot;quoted&quot;",
    "&amp;lt;twice&amp;gt;",
    "sch\u00c3\u00b6n caf\u00c3\u00a9",
    "\u201ccurly\u201d \u2018quotes\u2019 \u2014 dash",
    "\uff21\uff22\uff23 full width",
    "no\u00a0break and zero\u200bwidth",
    "\U0001f98a emoji",
    "",
    "   ",
)


@pytest.mark.parametrize("text", MESSY, ids=ascii)
def test_cleaning_matches_diffusers(text):
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    assert clean_prompt(text) == prompt_clean(text)


@given(st.text(max_size=40))
def test_cleaned_text_has_only_single_inner_spaces(text):
    cleaned = clean_prompt(text)
    assert cleaned == " ".join(cleaned.split())


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("a fox", ("a fox",)),
        ("a fox | snow", ("a fox", "snow")),
        ("a|b|c", ("a", "b", "c")),
        ("a fox |", ("a fox",)),
        ("a || b", ("a", "b")),
        ("", ("",)),
        (" | ", ("",)),
        (r"a \| b | c", ("a | b", "c")),
        ("[1] alone is text", ("[1] alone is text",)),
    ],
)
def test_bars_separate_prompts(text, prompts):
    assert split_prompts(text) == PromptList(prompts)


def test_numbered_shots_make_an_echoshot_prompt():
    found = split_prompts("[1] a red fox [2] a snowy hill\n[3] the sky")
    assert found == PromptList(("a red fox", "a snowy hill", "the sky"), is_echoshot=True)


def test_a_bar_inside_a_shot_is_text():
    assert split_prompts("[1] a | b [2] c").prompts == ("a | b", "c")


def test_six_shots_are_allowed():
    assert len(split_prompts(" ".join(f"[{n}] shot" for n in range(1, 7))).prompts) == 6


@pytest.mark.parametrize("text", [" ".join(f"[{n}] shot" for n in range(1, 8)), "[1] [2] only one"])
def test_other_numbers_of_shots_are_an_error(text):
    with pytest.raises(InputError, match="2 to 6"):
        split_prompts(text)


@pytest.mark.parametrize(
    ("text", "expected", "spans"),
    [
        ("a (red:1.2) fox", "a red fox", [("red", 1.2)]),
        ("(red fox:0.5), snow", "red fox, snow", [("red fox", 0.5)]),
        ("(a:1.1) (b:2)", "a b", [("a", 1.1), ("b", 2.0)]),
        ("(a:.5)", "a", [("a", 0.5)]),
        ("(a:-1)", "a", [("a", -1.0)]),
        ("(a: 1.5 )", "a", [("a", 1.5)]),
        ("(x (y:0.8) z:1.4)", "x y z", [("x ", 1.4), ("y", 0.8), (" z", 1.4)]),
        ("(a (b) c:1.2)", "a (b) c", [("a (b) c", 1.2)]),
        ("(a:b:1.2)", "a:b", [("a:b", 1.2)]),
        ("(a:1.0) b", "a b", []),
        ("a ( red :1.2) fox", "a red fox", [("red ", 1.2)]),
        (r"(a \(b\):1.2) \(c:2\)", "a (b) (c:2)", [("a (b)", 1.2)]),
    ],
)
def test_weights_are_taken_out_of_the_text(text, expected, spans):
    found = parse_weights(text)
    assert found.text == expected
    assert [(found.text[s.start : s.stop], s.weight) for s in found.spans] == spans


@pytest.mark.parametrize(
    "text",
    [
        "a man (in a red coat) walks",
        "format (16:9), at (12:30)",
        "unclosed (red:1.2",
        "closed) only",
        "(:1.2)",
        "(red:very)",
        "(red:nan)",
        "a: b",
        "smile :) and (:",
        "()",
        "",
    ],
)
def test_text_without_weights_stays_as_it_is(text):
    assert parse_weights(text) == WeightedPrompt(text)


@given(st.text(alphabet="ab():1.2\\ ", max_size=30))
def test_any_text_parses_to_spans_in_order_inside_the_text(text):
    found = parse_weights(text)
    edges = [0, *(edge for span in found.spans for edge in (span.start, span.stop)), len(found.text)]
    assert edges == sorted(edges)
    assert all(span.start < span.stop and span.weight != 1.0 for span in found.spans)


def test_a_token_has_the_weight_of_most_of_its_characters():
    prompt = WeightedPrompt("a red fox", (WeightSpan(2, 5, 1.5),))
    assert prompt.weight(1, 5) == 1.5  # " red": the space lies outside
    assert prompt.weight(0, 1) == 1.0
    assert prompt.weight(1, 2) == 1.5  # the space of "red" alone
    assert prompt.weight(4, 8) == 1.0  # "d fo"
    assert prompt.weight(9, 9) == 1.0  # the end token
