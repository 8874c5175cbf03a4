"""Make one picture of a video's frames; runs in the environment, which has av and Pillow.

contact_sheet.py VIDEO PICTURE
"""

import math
import sys
from pathlib import Path

COLUMNS = 4
MOST_FRAMES = 12
CELL_WIDTH = 240  # pixels; smaller frames are enlarged to it by a whole factor
GAP = 6


def contact_sheet(video: Path, picture: Path) -> int:
    """Write up to twelve evenly spaced frames of `video` as a grid to `picture`; returns the video's frames.

    Raises:
        ValueError: the video has no frame.
    """
    import av
    from PIL import Image

    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    if not frames:
        raise ValueError(f"{video} has no frame")
    count = min(len(frames), MOST_FRAMES)
    step = (len(frames) - 1) / max(count - 1, 1)
    chosen = [frames[round(i * step)] for i in range(count)]
    width, height = _cell(*chosen[0].size)
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), (24, 24, 24))
    for i, frame in enumerate(chosen):
        place = GAP + (i % columns) * (width + GAP), GAP + (i // columns) * (height + GAP)
        sheet.paste(frame.resize((width, height), Image.Resampling.NEAREST), place)
    sheet.save(picture)
    return len(frames)


def _cell(width: int, height: int) -> tuple[int, int]:
    if width <= CELL_WIDTH:
        factor = math.ceil(CELL_WIDTH / width)
        return width * factor, height * factor
    return CELL_WIDTH, round(height * CELL_WIDTH / width)


if __name__ == "__main__":
    print(contact_sheet(Path(sys.argv[1]), Path(sys.argv[2])))
