"""Lists of transformer blocks."""

from __future__ import annotations

import re

from ..wanvideo.errors import InputError
from .base import CATEGORY, WanNode
from .host import io

PART = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


def parse_blocks(text: str) -> list[int]:
    """Block numbers in the order they are named.

    Args:
        text: numbers and ranges like ``0, 2, 5-8``, separated by commas or line breaks.

    Raises:
        InputError: a part that is neither, or a range that runs backwards.
    """
    blocks: list[int] = []
    for part in filter(None, map(str.strip, re.split(r"[,\n]", text))):
        match = PART.fullmatch(part)
        if match is None:
            raise InputError("blocks", f"'{part}' is neither a number nor a range like 5-8")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError("blocks", f"the range {part} runs backwards; write {last}-{first}")
        blocks.extend(range(first, last + 1))
    return blocks


class WanVideoBlockList(WanNode):
    """Block numbers from text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoBlockList",
            display_name="WanVideo Block List",
            category=CATEGORY,
            description="A list of transformer blocks, for inputs that apply to some blocks only: blocks of "
            "WanVideo Set Attention Mode Override, dense_blocks of WanVideo Set Radial Attention.",
            inputs=[
                io.String.Input(
                    "blocks",
                    default="1",
                    multiline=True,
                    tooltip="Numbers and ranges, for example 0, 2, 5-8. The first block is 0.",
                )
            ],
            outputs=[io.Int.Output(display_name="block_list")],
        )

    @classmethod
    def run(cls, *, blocks: str) -> io.NodeOutput:
        """A list of integers."""
        return io.NodeOutput(parse_blocks(blocks))


NODES: list[type[WanNode]] = [WanVideoBlockList]
