"""Draw the thumbnails of the example workflows: three strips that tell what goes in and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw

from . import scene as look
from .scene import GOLD, STRIP, Picture, scene

SIZE = (512, 288)
Strips = tuple[Picture, Picture, Picture]


def draw(name: str) -> Picture:
    """The thumbnail of a workflow."""
    sheet = Image.new("RGB", SIZE, "black")
    for index, strip in enumerate(STRIPS[name]()):
        sheet.paste(strip, (2 + index * (STRIP[0] + 4) + index // 2, 0))
    for mark in MARKS.get(name, ()):
        mark(sheet)
    return sheet


def _text_to_video() -> Strips:
    return scene(0.0), scene(0.5), scene(1.0)


def _two_experts() -> Strips:
    return look.noisy(scene(0.0), 0.85), look.noisy(scene(0.5), 0.35), scene(1.0)


def _picture_to_video() -> Strips:
    return look.photograph(scene(0.0)), scene(0.5), scene(1.0)


def _picture_two_experts() -> Strips:
    return look.photograph(scene(0.0)), look.noisy(scene(0.5), 0.6), scene(1.0)


def _loop() -> Strips:
    return look.photograph(scene(0.0)), scene(0.5), look.photograph(scene(0.0))


def _first_and_last() -> Strips:
    return look.photograph(scene(0.0)), scene(0.5), look.photograph(scene(1.0))


def _first_and_last_fun() -> Strips:
    return look.photograph(scene(0.0)), look.half(look.empty(), scene(0.5)), look.photograph(scene(1.0))


def _first_and_last_vace() -> Strips:
    return look.photograph(scene(0.0)), look.empty(), look.photograph(scene(1.0))


def _upscale() -> Strips:
    return look.coarse(scene(0.3)), look.half(look.coarse(scene(0.5)), scene(0.5)), scene(0.7)


def _control() -> Strips:
    return look.edges(scene(0.0)), look.half(look.edges(scene(0.5)), scene(0.5)), scene(1.0)


def _control_and_reference() -> Strips:
    reference = look.subject()
    return look.with_inset(look.edges(scene(0.0)), reference), scene(0.5), scene(1.0)


def _camera() -> Strips:
    start = scene(0.5)
    return look.photograph(start), look.nearer(start, 1.3), look.nearer(start, 1.8)


def _subject() -> Strips:
    return look.photograph(look.subject()), scene(0.4), scene(0.9)


def _render() -> Strips:
    return (
        look.with_inset(look.points(scene(0.3)), scene(0.3)),
        look.half(look.points(scene(0.3, shift=6)), scene(0.3, shift=6)),
        scene(0.3, shift=12),
    )


def _round_arrow(sheet: Picture) -> None:
    """An arrow that comes back to where it began."""
    draw = ImageDraw.Draw(sheet)
    centre, radius = (SIZE[0] / 2, 56), 34
    box = [centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius]
    draw.arc(box, 300, 235, fill=GOLD, width=7)
    x, y = (math.cos(math.radians(235)), math.sin(math.radians(235)))
    tip = (centre[0] + (radius - 3) * x, centre[1] + (radius - 3) * y)
    corners = ((-y * 24, x * 24), (x * 15, y * 15), (-x * 15, -y * 15))
    draw.polygon([(tip[0] + dx, tip[1] + dy) for dx, dy in corners], fill=GOLD)


def _steps(sheet: Picture) -> None:
    """A bar below: a quarter of the steps for the first model, the others for the second."""
    draw = ImageDraw.Draw(sheet)
    top, bottom = SIZE[1] - 22, SIZE[1] - 10
    draw.rectangle([12, top, 12 + 120, bottom], fill=(214, 84, 62))
    draw.rectangle([12 + 124, top, SIZE[0] - 12, bottom], fill=(84, 150, 214))


def _corners(sheet: Picture) -> None:
    """What a camera's finder shows."""
    draw = ImageDraw.Draw(sheet)
    left, top, right, bottom = 2 + STRIP[0] + 22, 40, 2 + STRIP[0] * 2 - 16, SIZE[1] - 40
    for x, y, dx, dy in (
        (left, top, 1, 1),
        (right, top, -1, 1),
        (left, bottom, 1, -1),
        (right, bottom, -1, -1),
    ):
        draw.line([(x, y + 24 * dy), (x, y), (x + 24 * dx, y)], fill=GOLD, width=5)


def _arrow(sheet: Picture) -> None:
    """From the left strip to the others."""
    draw = ImageDraw.Draw(sheet)
    middle = STRIP[0] + 4
    draw.line([(middle - 20, 144), (middle + 14, 144)], fill=GOLD, width=9)
    draw.polygon([(middle + 10, 126), (middle + 34, 144), (middle + 10, 162)], fill=GOLD)


def _film(sheet: Picture) -> None:
    """The holes of a film above and below: more frames per second."""
    draw = ImageDraw.Draw(sheet)
    for top in (0, SIZE[1] - 24):
        draw.rectangle([0, top, SIZE[0], top + 24], fill=(16, 17, 22))
        for number in range(16):
            x = 9 + 32 * number
            draw.rounded_rectangle([x, top + 6, x + 14, top + 17], 3, fill=(214, 216, 224))


def _step(number: int) -> Callable[[Picture], None]:
    """Which of two steps it is: one dot filled of two."""

    def mark(sheet: Picture) -> None:
        pen = ImageDraw.Draw(sheet)
        for index in (1, 2):
            x = SIZE[0] - 78 + 26 * index
            pen.ellipse(
                [x - 10, 12, x + 10, 32],
                fill=GOLD if index == number else None,
                outline=GOLD,
                width=3,
            )

    return mark


STRIPS: Mapping[str, Callable[[], Strips]] = {
    "t2v": _text_to_video,
    "t2v_wan22": _two_experts,
    "i2v_wan21": _picture_to_video,
    "flf2v_wan21": _first_and_last,
    "i2v_wan22": _picture_two_experts,
    "i2v_wan22_loop": _loop,
    "i2v_only": _picture_to_video,
    "upscale_only": _upscale,
    "ti2v_5b": _picture_to_video,
    "fun_inp": _first_and_last_fun,
    "fun_control": _control,
    "fun_camera": _camera,
    "phantom": _subject,
    "vace": _control_and_reference,
    "vace_start_end": _first_and_last_vace,
    "uni3c": _render,
}
MARKS: Mapping[str, tuple[Callable[[Picture], None], ...]] = {
    "t2v_wan22": (_steps,),
    "i2v_wan21": (_arrow,),
    "i2v_wan22": (_arrow, _steps),
    "i2v_wan22_loop": (_round_arrow,),
    "i2v_only": (_arrow, _step(1)),
    "upscale_only": (_step(2),),
    "ti2v_5b": (_arrow, _film),
    "fun_camera": (_corners,),
    "phantom": (_arrow,),
}
