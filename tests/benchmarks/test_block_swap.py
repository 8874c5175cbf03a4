"""The streaming benchmark runs, on a small model and by arithmetic."""

import re

import pytest
import torch
from comfyui_wanvideo.benchmarks.block_swap import main


def test_the_tiny_model_gives_the_resident_result_with_every_placement(capsys):
    main(["--tiny", "--repeats", "1"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[3:]]
    assert [(row[1], row[-1]) for row in rows] == [("0", "0"), ("4", "0"), ("8", "0")]


def test_14b_in_bf16_all_streamed_needs_little_by_arithmetic(capsys):
    main(["--plan"])
    found = re.findall(
        r"(\d+x\d+), 81 frames, bf16: .* 40 streamed .* ([\d.]+) GB on", capsys.readouterr().out
    )
    limits = {"832x480": 3.1, "1280x720": 4.7}
    assert set(limits) == {size for size, _ in found}
    assert all(float(gigabytes) <= limits[size] for size, gigabytes in found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_it_needs(capsys):
    main([])
    assert "needs a CUDA device" in capsys.readouterr().out
