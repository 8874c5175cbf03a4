import pytest
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.sampling.filters import CFGZeroStar, FreSca
from comfyui_wanvideo.wanvideo.sampling.guidance import cfg_guidance
from comfyui_wanvideo.wanvideo.sampling.plan import SamplingPlan
from comfyui_wanvideo.wanvideo.sampling.schedules import build_schedule
from comfyui_wanvideo.wanvideo.sampling.solvers import SOLVERS


class TestSteps:
    def test_a_run_knows_its_part_of_the_schedule(self, make_plan):
        plan = make_plan("euler", 8, first=2, end=5)
        assert plan.sigmas == plan.schedule.sigmas[2:6]
        assert plan.timesteps == plan.schedule.timesteps[2:5]
        assert [step.index for step in plan.steps] == [0, 1, 2]
        assert [step.schedule_index for step in plan.steps] == [2, 3, 4]
        assert {(step.count, step.schedule_count) for step in plan.steps} == {(3, 8)}
        assert [step.is_last for step in plan.steps] == [False, False, True]

    def test_steps_join_without_a_gap(self, make_plan):
        steps = make_plan("unipc", 8).steps
        assert [step.sigma_next for step in steps[:-1]] == [step.sigma for step in steps[1:]]

    def test_a_restarting_run_ends_its_path_where_it_stops(self, make_plan):
        steps = make_plan("unipc", 8, first=2, end=5).steps
        assert [step.steps_left for step in steps] == [3, 2, 1]
        assert {step.path_steps for step in steps} == {3}
        assert steps[-1].timestep_next is None

    def test_a_continuing_run_has_the_path_of_the_schedule(self, make_plan):
        plan = make_plan("unipc", 8, first=2, end=5, solver_history="continue")
        assert [step.steps_left for step in plan.steps] == [6, 5, 4]
        assert {step.path_steps for step in plan.steps} == {8}
        assert plan.steps[-1].timestep_next == plan.schedule.timesteps[5]

    def test_the_last_step_of_the_schedule_has_no_next_timestep(self, make_plan):
        for history in ("restart", "continue"):
            assert make_plan("unipc", 4, solver_history=history).steps[-1].timestep_next is None


class TestPlan:
    def test_the_solver_goes_with_the_scheduler(self, make_plan):
        assert make_plan("dpm++_sde/beta").method is SOLVERS["dpm++_sde"]

    def test_another_solver_may_be_chosen(self, make_plan):
        assert make_plan("unipc", solver=SOLVERS["euler"]).method is SOLVERS["euler"]

    def test_filters_are_put_in_order(self, make_plan):
        plan = make_plan("unipc", filters=(FreSca(), CFGZeroStar()))
        assert plan.filters == (CFGZeroStar(), FreSca())

    def test_it_prints_as_one_line(self, make_plan):
        plan = make_plan("unipc", 8, first=2, end=5, cfg=6.0, seed=42, filters=(CFGZeroStar(),))
        line = str(plan)
        assert "\n" not in line
        for part in (
            "unipc",
            "steps 2 to 5 of 8",
            "0.9375 to 0.7499",
            "6 model runs",
            "CFGZeroStar",
            "seed 42",
        ):
            assert part in line

    def test_two_equal_plans_are_equal(self, make_plan):
        assert make_plan("unipc", 4, seed=1) == make_plan("unipc", 4, seed=1)

    @pytest.mark.parametrize(("first", "end"), [(-1, 2), (2, 2), (0, 5)])
    def test_steps_outside_the_schedule_are_refused(self, first, end):
        schedule = build_schedule("unipc", 4)
        with pytest.raises(InputError, match="schedule of 4"):
            SamplingPlan(schedule, first, end, cfg_guidance(1.0, max(0, end - first)))

    def test_guidance_for_other_steps_is_refused(self):
        with pytest.raises(ValueError, match="guidance for 3 steps, the run has 4"):
            SamplingPlan(build_schedule("unipc", 4), 0, 4, cfg_guidance(1.0, 3))
