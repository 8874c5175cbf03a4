import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.sampling.edits import CleanFrames, InpaintMask, LatentEdit, fit_mask
from comfyui_wanvideo.wanvideo.sampling.sampler import sample
from comfyui_wanvideo.wanvideo.sampling.schedules import SCHEDULER_NAMES

SHAPE = (1, 4, 5, 6, 8)


def velocity(x, t):
    return 0.4 * torch.sin(2 * x + 3 * t) + (t - 0.3) * x - 0.2


def run_edited(plan, latent, edits, seen=None):
    def denoise(pass_name, x, timestep, step):
        if seen is not None:
            seen.append(x.clone())
        return velocity(x, timestep / 1000)

    return sample(denoise, latent, plan, generator=torch.Generator().manual_seed(0), edits=edits)


@pytest.fixture
def latent():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def clean():
    return torch.randn((1, 4, 2, 6, 8), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
class TestCleanFramesWithEverySolver:
    FRAMES = (0, 3)

    def test_the_model_sees_nothing_but_the_clean_frames(self, name, make_plan, latent, clean):
        seen = []
        run_edited(make_plan(name), latent, [CleanFrames(clean, self.FRAMES)], seen)
        assert len(seen) >= 4
        assert all(torch.equal(x[:, :, self.FRAMES], clean) for x in seen)

    def test_they_come_out_as_they_went_in(self, name, make_plan, latent, clean):
        result = run_edited(make_plan(name), latent, [CleanFrames(clean, self.FRAMES)])
        assert torch.equal(result.latent[:, :, self.FRAMES], clean)
        assert torch.allclose(result.denoised[:, :, self.FRAMES], clean, atol=1e-6)

    def test_a_run_that_stops_early_has_them_clean(self, name, make_plan, latent, clean):
        result = run_edited(make_plan(name, end=2), latent, [CleanFrames(clean, self.FRAMES)])
        assert torch.equal(result.latent[:, :, self.FRAMES], clean)

    def test_the_other_frames_are_sampled_as_without(self, name, make_plan, latent, clean):
        """The model here treats every element alone, so the other frames must not notice."""
        others = [1, 2, 4]
        plan = make_plan(name)
        result, plain = (run_edited(plan, latent, edits) for edits in ([CleanFrames(clean, self.FRAMES)], []))
        assert torch.equal(result.latent[:, :, others], plain.latent[:, :, others])


def test_a_solver_alone_does_not_move_pinned_frames(make_plan, latent, clean):
    """Without putting them back after a step: the pinned estimate is enough for deterministic solvers."""

    class OnlyPinned(CleanFrames):
        def after_step(self, x, step):
            return x

    for name in ("unipc", "dpm++", "euler", "deis", "res_multistep"):
        result = run_edited(make_plan(name, 8), latent, [OnlyPinned(clean, (0, 3))])
        assert torch.allclose(result.latent[:, :, [0, 3]], clean, atol=2e-6), name


def test_the_latent_given_stays_as_it_is(make_plan, latent, clean):
    before = latent.clone()
    run_edited(make_plan("euler"), latent, [CleanFrames(clean, (0, 1))])
    assert torch.equal(latent, before)


def test_frames_that_do_not_fit_their_indices_are_refused(clean):
    with pytest.raises(ValueError, match="3 frame indices"):
        CleanFrames(clean, (0, 1, 2))


class TestInpaintMask:
    def inpaint(self, plan, latent, mask, original):
        return run_edited(plan, latent, [InpaintMask(mask, original, latent)]).latent

    @pytest.fixture
    def original(self):
        return torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))

    def test_a_mask_of_ones_changes_nothing(self, make_plan, latent, original):
        plan = make_plan("unipc")
        found = self.inpaint(plan, latent, torch.ones(5, 6, 8), original)
        assert torch.equal(found, run_edited(plan, latent, []).latent)

    def test_a_mask_of_zeros_is_the_original_stepped_once_from_the_last_level(
        self, make_plan, latent, original
    ):
        plan = make_plan("euler")
        found = self.inpaint(plan, latent, torch.zeros(5, 6, 8), original)
        sigma, timestep = plan.sigmas[-2], plan.timesteps[-1]
        x = (1 - sigma) * original + sigma * latent
        assert torch.allclose(found, x - sigma * velocity(x, timestep / 1000), atol=1e-5)

    def test_both_halves_of_a_mask_go_their_own_way(self, make_plan, latent, original):
        plan = make_plan("euler")
        mask = torch.zeros(5, 6, 8)
        mask[..., 4:] = 1
        found = self.inpaint(plan, latent, mask, original)
        kept = self.inpaint(plan, latent, torch.zeros(5, 6, 8), original)
        free = self.inpaint(plan, latent, torch.ones(5, 6, 8), original)
        assert torch.equal(found[..., :4], kept[..., :4])
        assert torch.equal(found[..., 4:], free[..., 4:])

    @pytest.mark.parametrize(
        ("grey", "imposed"), [(0.0, 3), (0.2, 3), (0.4, 3), (0.5, 2), (0.75, 1), (1.0, 0)]
    )
    def test_grey_is_kept_while_its_complement_is_above_the_share_of_steps(
        self, grey, imposed, make_plan, latent, original
    ):
        plan = make_plan("euler")
        edit = InpaintMask(torch.full((5, 6, 8), grey), original, latent)
        edit.on_start(latent, plan.steps[0])
        changed = [not torch.equal(edit.after_step(latent, step), latent) for step in plan.steps]
        assert changed == [True] * imposed + [False] * (4 - imposed)

    def test_the_kept_part_is_at_the_noise_level_of_the_next_step(self, make_plan, latent, original):
        step = make_plan("unipc").steps[1]
        edit = InpaintMask(torch.zeros(1, 6, 8), original, latent)
        edit.on_start(latent, step)
        expected = (1 - step.sigma_next) * original + step.sigma_next * latent
        assert torch.allclose(edit.after_step(latent, step), expected, atol=1e-6)


class TestFitMask:
    @pytest.mark.parametrize(
        "shape", [(5, 6, 8), (5, 1, 6, 8), (1, 1, 5, 6, 8), (1, 48, 64), (48, 64), (20, 1, 48, 64)]
    )
    def test_every_form_of_a_mask_becomes_the_latent_grid(self, shape):
        assert fit_mask(torch.ones(shape), SHAPE).equal(torch.ones(1, 1, 5, 6, 8))

    def test_a_mask_of_the_latent_grid_stays(self):
        mask = torch.rand(5, 6, 8)
        assert torch.equal(fit_mask(mask, SHAPE)[0, 0], mask)

    def test_one_picture_holds_for_all_frames(self):
        mask = torch.rand(1, 6, 8)
        assert torch.allclose(fit_mask(mask, SHAPE)[0, 0], mask.expand(5, 6, 8))

    def test_what_is_no_picture_is_refused(self):
        with pytest.raises(InputError, match="noise_mask"):
            fit_mask(torch.ones(4), SHAPE)


class TestHooks:
    def test_input_edits_are_undone_in_reverse_order(self, make_plan, latent):
        class Roll(LatentEdit):
            def __init__(self, shift):
                self.shift = shift

            def model_input(self, x, step):
                return x.roll(self.shift, dims=2) * (1 + self.shift)

            def prediction(self, velocity, x, step):
                return (velocity / (1 + self.shift)).roll(-self.shift, dims=2)

        def linear(pass_name, x, timestep, step):
            return 0.3 * x

        plan = make_plan("unipc")
        edits = [Roll(1), Roll(2)]
        generator = torch.Generator()
        plain = sample(linear, latent, plan, generator=generator)
        assert torch.allclose(
            sample(linear, latent, plan, edits=edits, generator=generator).latent, plain.latent, atol=1e-5
        )

    def test_an_edit_without_hooks_changes_nothing(self, make_plan, latent):
        plan = make_plan("unipc")
        with_edit = run_edited(plan, latent, [LatentEdit()]).latent
        assert torch.equal(with_edit, run_edited(plan, latent, []).latent)
