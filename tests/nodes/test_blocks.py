"""Lists of blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def parse(comfyui_path):
    import importlib

    return importlib.import_module("comfyui_wanvideo.nodes.blocks").parse_blocks


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("1", [1]),
        ("0-5", [0, 1, 2, 3, 4, 5]),
        ("0,2,3-5", [0, 2, 3, 4, 5]),
        (" 7 ,\n 2 - 3 \n\n, 0,", [7, 2, 3, 0]),
        ("4-4", [4]),
        ("", []),
        ("\r\n", []),
        ("1\r\n2", [1, 2]),
    ],
)
def test_numbers_and_ranges(parse, text, blocks):
    assert parse(text) == blocks


@given(st.lists(st.integers(0, 99)))
def test_every_list_can_be_written(parse, blocks):
    assert parse(", ".join(map(str, blocks))) == blocks


@pytest.mark.parametrize("text", ["a", "1.5", "-1", "1-", "1-2-3", "1;2", "0x1"])
def test_other_text_is_refused_with_the_part(parse, text):
    with pytest.raises(Exception, match=f"blocks: '{text}' is neither a number nor a range"):
        parse(f"0, {text}")


def test_a_backward_range_is_refused_with_the_right_one(parse):
    with pytest.raises(Exception, match="the range 8-5 runs backwards; write 5-8"):
        parse("8-5")


def test_the_node_gives_the_list(node_module):
    assert node_module("blocks").WanVideoBlockList.execute(blocks="0, 3-4")[0] == [0, 3, 4]
