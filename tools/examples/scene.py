"""A fox on its way through a winter wood, and the ways in which a thumbnail shows it."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

STRIP = (166, 288)
SKY_TOP, SKY_LOW, SNOW, TRUNK, FOX = (
    (38, 58, 98),
    (240, 178, 124),
    (226, 232, 242),
    (44, 40, 52),
    (206, 92, 36),
)
WHITE, BLACK, GREY, GOLD = (255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 214, 110)
SCALE = 4  # drawn larger, then made smaller: smooth edges
Picture = Image.Image


def scene(time: float, *, fox: bool = True, shift: float = 0.0) -> Picture:
    """The wood at a time.

    Args:
        time: 0 to 1.
        fox: whether it is there.
        shift: pixels the near trees go to the left more, as when the camera moves.
    """
    width, height = STRIP
    picture = Image.new("RGB", (width * SCALE, height * SCALE))
    draw = ImageDraw.Draw(picture)
    horizon = int(height * 0.62)
    for row in range(horizon * SCALE):
        draw.line([(0, row), (width * SCALE, row)], fill=_mix(SKY_TOP, SKY_LOW, row / (horizon * SCALE)))
    _disc(draw, (width * 0.72, height * (0.52 - 0.12 * time)), 17, (255, 236, 190))
    draw.rectangle([0, horizon * SCALE, width * SCALE, height * SCALE], fill=SNOW)
    for number in range(7):
        x = (number * 31 + 9 - 26 * time - shift * (1 + number % 3)) % (width + 20) - 10
        draw.rectangle([x * SCALE, 0, (x + 4 + number % 3) * SCALE, (horizon + 14) * SCALE], fill=TRUNK)
    if fox:
        _fox(draw, (width * (0.22 + 0.5 * time), height * 0.76), time)
    return picture.resize(STRIP, Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(0.4))


def subject() -> Picture:
    """The fox alone on white."""
    width, height = STRIP
    picture = Image.new("RGB", (width * SCALE, height * SCALE), WHITE)
    _fox(ImageDraw.Draw(picture), (width * 0.5, height * 0.5), 0.3)
    return picture.resize(STRIP, Image.Resampling.LANCZOS)


def photograph(picture: Picture) -> Picture:
    """A picture somebody has: with a white border, on a dark ground."""
    small = ImageOps.expand(picture.resize((116, 201), Image.Resampling.LANCZOS), 7, WHITE)
    sheet = Image.new("RGBA", (small.width + 2, small.height + 2))
    sheet.paste(small, (1, 1))
    turned = sheet.rotate(4, Image.Resampling.BICUBIC, expand=True)
    ground = Image.new("RGB", STRIP, (24, 26, 34))
    ground.paste(turned, ((STRIP[0] - turned.width) // 2, (STRIP[1] - turned.height) // 2), turned)
    return ground


def edges(picture: Picture) -> Picture:
    """White lines on black."""
    found = picture.convert("L").filter(ImageFilter.FIND_EDGES).point([0] * 31 + [255] * 225)
    return ImageOps.expand(ImageOps.crop(found, 2), 2, 0).convert("RGB")


def noisy(picture: Picture, share: float) -> Picture:
    """A picture with noise in it: 0 is none, 1 nothing else."""
    noise = Image.frombytes("RGB", STRIP, random.Random(0).randbytes(3 * STRIP[0] * STRIP[1]))
    return Image.blend(picture, noise, share)


def coarse(picture: Picture) -> Picture:
    """A picture of few pixels."""
    small = picture.resize((STRIP[0] // 8, STRIP[1] // 8), Image.Resampling.BOX)
    return small.resize(STRIP, Image.Resampling.NEAREST)


def points(picture: Picture) -> Picture:
    """A picture as a cloud of points on black."""
    drawn = random.Random(1)
    places = [(drawn.randrange(STRIP[0]), drawn.randrange(STRIP[1])) for _ in range(5200)]
    mask = Image.new("L", STRIP)
    draw = ImageDraw.Draw(mask)
    for x, y in places:
        draw.rectangle([x, y, x + 1, y + 1], fill=255)
    return ImageChops.composite(picture, Image.new("RGB", STRIP), mask)


def nearer(picture: Picture, factor: float) -> Picture:
    """What is left when the camera comes nearer."""
    width, height = STRIP[0] / factor, STRIP[1] / factor
    left, top = (STRIP[0] - width) * 0.5, (STRIP[1] - height) * 0.7
    box = (left, top, left + width, top + height)
    return picture.resize(STRIP, Image.Resampling.LANCZOS, box=box)


def empty() -> Picture:
    """A frame that is still to be made."""
    return Image.new("RGB", STRIP, GREY)


def half(left: Picture, right: Picture) -> Picture:
    """The left half of one picture and the right half of another, with a line between."""
    joined = left.copy()
    middle = STRIP[0] // 2
    joined.paste(right.crop((middle, 0, *STRIP)), (middle, 0))
    ImageDraw.Draw(joined).line([(middle, 0), (middle, STRIP[1])], fill=WHITE, width=2)
    return joined


def with_inset(picture: Picture, inset: Picture) -> Picture:
    """A picture with a small one in its lower corner."""
    small = ImageOps.expand(inset.resize((58, 100), Image.Resampling.LANCZOS), 3, WHITE)
    joined = picture.copy()
    joined.paste(small, (STRIP[0] - small.width - 8, STRIP[1] - small.height - 8))
    return joined


def _fox(draw: ImageDraw.ImageDraw, place: tuple[float, float], time: float) -> None:
    x, y = place
    for offset, phase in ((-13, 0.0), (-8, 2.0), (8, 1.0), (13, 3.0)):
        foot = x + offset + 5 * math.sin(6 * time + phase)
        draw.line(_scaled([(x + offset, y), (foot, y + 17)]), fill=TRUNK, width=3 * SCALE)
    draw.ellipse(_scaled([(x - 18, y - 9), (x + 18, y + 7)]), fill=FOX)
    draw.polygon(_scaled([(x - 14, y - 2), (x - 40, y - 12), (x - 38, y + 2)]), fill=FOX)
    draw.polygon(_scaled([(x + 12, y - 6), (x + 34, y - 6), (x + 18, y - 20)]), fill=FOX)
    draw.polygon(_scaled([(x + 15, y - 15), (x + 18, y - 28), (x + 23, y - 16)]), fill=FOX)


def _scaled(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * SCALE, y * SCALE) for x, y in places]


def _disc(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: int, colour: tuple[int, ...]
) -> None:
    x, y = centre
    draw.ellipse(_scaled([(x - radius, y - radius), (x + radius, y + radius)]), fill=colour)


def _mix(a: tuple[int, int, int], b: tuple[int, int, int], share: float) -> tuple[int, ...]:
    return tuple(round(u + (v - u) * share) for u, v in zip(a, b, strict=True))
