"""What a decoder has to know."""

from comfyui_wanvideo.wanvideo.conditioning.decode_plan import DecodePlan, merged


def test_a_plan_without_anything_special_is_plain():
    assert merged([DecodePlan(), DecodePlan()], 5).is_plain


def test_plans_of_several_inputs_become_one():
    plan = merged([DecodePlan(leading_frames=2), DecodePlan(is_last_alone=True)], 7)
    assert plan == DecodePlan(leading_frames=2, is_last_alone=True, latent_frames=7)


def test_leading_frames_are_shared_by_the_inputs_that_have_some():
    assert merged([DecodePlan(leading_frames=2), DecodePlan(leading_frames=1)], 7).leading_frames == 2
