"""Draw the thumbnail of an example workflow: three frames of a scene that moves."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIZE, FRAMES = (512, 288), 3
SKY_TOP, SKY_LOW, SNOW, TRUNK, FOX = (
    (38, 58, 98),
    (240, 178, 124),
    (226, 232, 242),
    (44, 40, 52),
    (206, 92, 36),
)


def text_to_video(path: Path) -> None:
    """A fox on its way through a winter wood, in three strips of one picture."""
    sheet = Image.new("RGB", SIZE, "black")
    width = SIZE[0] // FRAMES
    for index in range(FRAMES):
        sheet.paste(_scene(index / (FRAMES - 1), (width - 4, SIZE[1])), (index * width + 2, 0))
    sheet.save(path, quality=88)


def _scene(time: float, size: tuple[int, int]) -> Image.Image:
    width, height = size
    scale = 4
    picture = Image.new("RGB", (width * scale, height * scale))
    draw = ImageDraw.Draw(picture)
    horizon = int(height * 0.62)
    for row in range(horizon * scale):
        share = row / (horizon * scale)
        draw.line([(0, row), (width * scale, row)], fill=_mix(SKY_TOP, SKY_LOW, share))
    _disc(draw, (width * 0.72, height * (0.52 - 0.12 * time)), 17, (255, 236, 190), scale)
    draw.rectangle([0, horizon * scale, width * scale, height * scale], fill=SNOW)
    for number in range(7):
        x = (number * 31 + 9 - 26 * time) % (width + 20) - 10
        draw.rectangle([x * scale, 0, (x + 4 + number % 3) * scale, (horizon + 14) * scale], fill=TRUNK)
    _fox(draw, (width * (0.22 + 0.5 * time), height * 0.76), time, scale)
    return picture.resize(size, Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(0.4))


def _fox(draw: ImageDraw.ImageDraw, place: tuple[float, float], time: float, scale: int) -> None:
    x, y = place
    for offset, phase in ((-13, 0.0), (-8, 2.0), (8, 1.0), (13, 3.0)):
        foot = x + offset + 5 * math.sin(6 * time + phase)
        draw.line(
            [((x + offset) * scale, y * scale), (foot * scale, (y + 17) * scale)], fill=TRUNK, width=3 * scale
        )
    draw.ellipse([(x - 18) * scale, (y - 9) * scale, (x + 18) * scale, (y + 7) * scale], fill=FOX)
    draw.polygon(_points([(x - 14, y - 2), (x - 40, y - 12), (x - 38, y + 2)], scale), fill=FOX)
    draw.polygon(_points([(x + 12, y - 6), (x + 34, y - 6), (x + 18, y - 20)], scale), fill=FOX)
    draw.polygon(_points([(x + 15, y - 15), (x + 18, y - 28), (x + 23, y - 16)], scale), fill=FOX)


def _points(points: list[tuple[float, float]], scale: int) -> list[tuple[float, float]]:
    return [(x * scale, y * scale) for x, y in points]


def _disc(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: int, colour: tuple[int, ...], scale: int
) -> None:
    x, y = centre
    box = [(x - radius) * scale, (y - radius) * scale, (x + radius) * scale, (y + radius) * scale]
    draw.ellipse(box, fill=colour)


def _mix(a: tuple[int, int, int], b: tuple[int, int, int], share: float) -> tuple[int, ...]:
    return tuple(round(u + (v - u) * share) for u, v in zip(a, b, strict=True))
