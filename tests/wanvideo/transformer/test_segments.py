"""Joining segments into one sequence."""

import torch
from comfyui_wanvideo.wanvideo.transformer.modulation import TimeTable, TokenRun
from comfyui_wanvideo.wanvideo.transformer.segments import MAIN, Segment, join


def segment(role, tokens, timesteps, **more):
    return Segment(torch.randn(1, tokens, 8), torch.zeros(tokens, 3), timesteps, role, **more)


def test_one_segment_is_handed_on_without_a_copy():
    main = segment(MAIN, 6, (500.0,))
    assert join([main])[0] is main.tokens


def test_main_is_found_wherever_it_lies():
    _, sequence = join(
        [segment("reference", 4, (0.0,)), segment(MAIN, 6, (500.0,)), segment("tail", 2, (500.0,))]
    )
    assert (sequence.main.start, sequence.main.stop) == (4, 10)


def test_neighbours_of_one_timestep_share_a_run_and_rows_are_distinct_timesteps():
    _, sequence = join(
        [segment("reference", 4, (0.0,)), segment(MAIN, 6, (0.0, 500.0, 500.0)), segment("tail", 2, (0.0,))]
    )
    assert sequence.timesteps == (0.0, 500.0)
    assert sequence.runs == (TokenRun(0, 6, 0), TokenRun(6, 10, 1), TokenRun(10, 12, 0))


def test_runs_of_a_slice_start_at_zero_and_cover_it():
    table = TimeTable(
        torch.zeros(2, 8), torch.zeros(2, 6, 8), (TokenRun(0, 6, 0), TokenRun(6, 10, 1), TokenRun(10, 12, 0))
    )
    assert table.for_slice(4, 11).runs == (TokenRun(0, 2, 0), TokenRun(2, 6, 1), TokenRun(6, 7, 0))
