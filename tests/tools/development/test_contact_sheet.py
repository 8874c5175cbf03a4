"""The contact sheet shows the video's frames in order."""

import av
import numpy as np
import pytest
from comfyui_wanvideo.tools.development.contact_sheet import contact_sheet
from PIL import Image


def write_video(path, greys, size=64):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for grey in greys:
            picture = np.full((size, size, 3), grey, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def test_frames_appear_in_order_and_first_and_last_are_there(tmp_path):
    greys = list(range(20, 220, 10))
    write_video(tmp_path / "v.mp4", greys)
    assert contact_sheet(tmp_path / "v.mp4", tmp_path / "v.png") == len(greys)
    sheet = Image.open(tmp_path / "v.png").convert("L")
    cell = (sheet.width - 6) // 4
    pixels = np.asarray(sheet).astype(int)
    seen = [pixels[6 + r * cell + 100, 6 + c * cell + 100] for r in range(3) for c in range(4)]
    assert seen == sorted(seen)
    assert seen[0] == pytest.approx(greys[0], abs=4)
    assert seen[-1] == pytest.approx(greys[-1], abs=4)


def test_a_video_of_one_frame_makes_one_cell(tmp_path):
    write_video(tmp_path / "v.mp4", [128])
    assert contact_sheet(tmp_path / "v.mp4", tmp_path / "v.png") == 1
    assert Image.open(tmp_path / "v.png").size == (268, 268)
