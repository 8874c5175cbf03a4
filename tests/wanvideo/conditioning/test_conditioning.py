"""What a pass is conditioned on, at a step and in a window."""

from dataclasses import dataclass, replace

import torch
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning, FamilyInput
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.conditioning.timed import Timed

GEOMETRY = VideoGeometry(64, 48, 17)  # five latent frames


@dataclass(frozen=True)
class Strong(FamilyInput):
    """Takes part with a strength per step; half the timestep on frame 1."""

    track: Timed
    strengths: tuple[float, ...] = (1.0,)

    def at(self, step, count):
        strength = self.strengths[min(step, len(self.strengths) - 1)]
        return replace(self, strengths=(strength,)) if strength and super().at(step, count) else None

    def frame_timesteps(self, timestep):
        return {1: timestep / 2}


def conditioning(**changes):
    value = Strong(Timed(torch.arange(5.0).view(1, 1, 5, 1, 1)), **changes)
    return Conditioning(GEOMETRY, inputs={"strong": value})


def strong_of(given: Conditioning) -> Strong | None:
    value = given.inputs.get("strong")
    assert value is None or isinstance(value, Strong)
    return value


def test_an_input_outside_its_steps_is_left_out():
    cut = conditioning(steps=StepRange(0.5, 1.0))
    assert ["strong" in cut.active(step, 4).inputs for step in range(4)] == [False, False, True, True]


def test_an_input_picks_the_strength_of_the_step():
    whole = conditioning(strengths=(0.5, 0.0, 2.0))
    picked = [strong_of(whole.active(step, 3)) for step in range(3)]
    assert [value and value.strengths for value in picked] == [(0.5,), None, (2.0,)]


def test_an_input_that_does_not_change_leaves_the_conditioning_itself():
    plain = Conditioning(GEOMETRY, inputs={"plain": FamilyInput()})
    assert plain.active(0, 4) is plain


def test_all_frames_share_the_timestep_unless_an_input_says_otherwise():
    assert Conditioning(GEOMETRY).frame_timesteps(600.0) == (600.0,)


def test_an_input_gives_frames_a_timestep_of_their_own():
    assert conditioning().frame_timesteps(600.0) == (600.0, 300.0, 600.0, 600.0, 600.0)


def test_a_window_cuts_the_geometry_and_every_timed_tensor():
    cut = conditioning().window([1, 2, 4])
    strong = strong_of(cut)
    assert cut.geometry.latent_frames == 3
    assert strong is not None
    assert strong.track.values.flatten().tolist() == [1, 2, 4]


def test_an_input_is_in_every_pass_unless_it_is_off():
    value = FamilyInput()
    assert value.variant(is_on=True, is_negative=True) is value
    assert value.variant(is_on=False, is_negative=False) is None
