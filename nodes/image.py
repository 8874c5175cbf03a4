"""Picture sizes that fit a generation size."""

from __future__ import annotations

from math import isqrt

from torch import Tensor

from .base import CATEGORY, WanNode
from .host import io, resize_images

SIZE_UNIT = 16  # pixels: VAE stride 8 x patch 2


def closest_size(width: int, height: int, pixels: int) -> tuple[int, int]:
    """The size the official image to video code takes for a picture.

    Args:
        width: of the picture.
        height: of the picture.
        pixels: area not to be exceeded.

    Returns:
        Width and height with about the picture's aspect ratio, each rounded down to a multiple of 16.
    """
    return (
        max(SIZE_UNIT, isqrt(pixels * width // height) // SIZE_UNIT * SIZE_UNIT),
        max(SIZE_UNIT, isqrt(pixels * height // width) // SIZE_UNIT * SIZE_UNIT),
    )


def _size(name: str, default: int, tooltip: str) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=64, max=8096, step=8, tooltip=tooltip)


class WanVideoImageResizeToClosest(WanNode):
    """Resize a picture to a size the model can make."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoImageResizeToClosest",
            display_name="WanVideo Image Resize To Closest",
            category=CATEGORY,
            description="Resizes a picture to the closest size the model can make, with the area of the "
            "generation size, as the official image to video code does.",
            inputs=[
                io.Image.Input("image", tooltip="Picture or frames."),
                _size("generation_width", 832, "Width of the video to make."),
                _size("generation_height", 480, "Height of the video to make."),
                io.Combo.Input(
                    "aspect_ratio_preservation",
                    options=["keep_input", "stretch_to_new", "crop_to_new"],
                    tooltip="keep_input: the picture's aspect ratio, rounded to multiples of 16; "
                    "stretch_to_new: the generation size, distorted; crop_to_new: the generation size, "
                    "cut from the middle.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.Int.Output(display_name="width"),
                io.Int.Output(display_name="height"),
            ],
        )

    @classmethod
    def run(
        cls, *, image: Tensor, generation_width: int, generation_height: int, aspect_ratio_preservation: str
    ) -> io.NodeOutput:
        """Resized frames ``[F, H, W, C]`` and their size."""
        shape = (generation_width, generation_height)
        if aspect_ratio_preservation == "keep_input":
            shape = (image.shape[2], image.shape[1])
        width, height = closest_size(*shape, generation_width * generation_height)
        crop = aspect_ratio_preservation == "crop_to_new"
        return io.NodeOutput(resize_images(image, width, height, crop=crop), width, height)


NODES: list[type[WanNode]] = [WanVideoImageResizeToClosest]
