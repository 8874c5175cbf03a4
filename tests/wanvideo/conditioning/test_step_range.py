"""A window of steps."""

import pytest
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange


@pytest.mark.parametrize(
    ("start", "end", "steps"),
    [
        (0.0, 1.0, (0, 1, 2, 3)),
        (0.0, 0.5, (0, 1, 2)),
        (0.0, 0.01, (0,)),
        (0.0, 0.0, (0,)),
        (0.1, 0.2, ()),
        (0.5, 1.0, (2, 3)),
        (0.8, 1.0, ()),
    ],
)
def test_both_ends_of_the_window_belong_to_it(start, end, steps):
    assert StepRange(start, end).steps(4) == steps
