"""Values per step; expected lists are the wrapper's."""

import pytest


@pytest.fixture
def schedules(node_module):
    return node_module("schedules")


def test_cfg_ramp_equals_the_wrappers_list(schedules):
    output = schedules.CreateCFGScheduleFloatList.execute(
        steps=10,
        cfg_scale_start=6.0,
        cfg_scale_end=2.0,
        interpolation="ease_out",
        start_percent=0.2,
        end_percent=0.8,
    )
    assert output[0] == [1.0, 1.0, 6.0, 4.78, 3.78, 3.0, 2.44, 2.11, 2.0, 1.0]


def test_value_ramp_equals_the_wrappers_list(schedules):
    output = schedules.CreateScheduleFloatList.execute(
        steps=10,
        start_value=1.0,
        end_value=4.0,
        default_value=0.5,
        interpolation="linear",
        start_percent=0.1,
        end_percent=0.7,
    )
    assert output[0] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 0.5, 0.5]


@pytest.mark.parametrize(("easing", "middle"), [("linear", 3.0), ("ease_in", 2.0), ("ease_out", 4.0)])
def test_easing_decides_the_middle(schedules, easing, middle):
    assert schedules.ramp(3, (1.0, 5.0), (0.0, 1.0), easing=easing, outside=0.0) == [1.0, middle, 5.0]


def test_a_ramp_of_one_step_has_the_start_value(schedules):
    assert schedules.ramp(4, (3.0, 7.0), (0.5, 0.5), easing="linear", outside=0.0) == [0.0, 0.0, 3.0, 0.0]


def test_a_start_behind_the_end_leaves_the_outside_value_and_says_so(schedules, caplog):
    assert schedules.ramp(4, (3.0, 7.0), (0.9, 0.1), easing="linear", outside=1.0) == [1.0] * 4
    assert "start_percent 0.9" in caplog.text


def test_cfg_is_off_at_step_0_when_the_start_rounds_to_it(schedules):
    output = schedules.CreateCFGScheduleFloatList.execute(
        steps=4,
        cfg_scale_start=5.0,
        cfg_scale_end=5.0,
        interpolation="linear",
        start_percent=0.1,
        end_percent=1.0,
    )
    assert output[0] == [1.0, 5.0, 5.0, 5.0]


def test_a_value_ramp_leaves_step_0_alone_when_the_start_rounds_to_it(schedules):
    assert schedules.ramp(4, (5.0, 5.0), (0.1, 1.0), easing="linear", outside=0.5) == [0.5, 5.0, 5.0, 5.0]


def test_a_ramp_that_starts_at_the_very_end_reaches_the_last_step(schedules):
    assert schedules.ramp(4, (3.0, 7.0), (1.0, 1.0), easing="linear", outside=0.0) == [0.0, 0.0, 0.0, 3.0]


def test_sigma_passes_unchanged(schedules):
    assert schedules.WanVideoSigmaToStep.execute(sigma=0.875)[0] == 0.875
