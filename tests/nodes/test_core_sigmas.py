"""Wan's sigmas in ComfyUI's scheduler nodes."""

import pytest
import torch


@pytest.fixture
def make(node_module):
    node = node_module("core_sigmas").DummyComfyWanModelObject
    return lambda shift=3.0: node.execute(shift=shift)[0]


@pytest.mark.parametrize("shift", [0.5, 1.0, 5.0])
def test_basic_scheduler_makes_shifted_sigmas(make, shift):
    from comfy_extras.nodes_custom_sampler import BasicScheduler

    sigmas = BasicScheduler.execute(make(shift), "simple", 4, 1.0)[0]
    even = torch.linspace(1, 0, 5)
    torch.testing.assert_close(sigmas, shift * even / (1 + (shift - 1) * even), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_a_shift_that_gives_no_schedule_is_refused(make, shift):
    with pytest.raises(Exception, match=r"^Dummy Comfy Wan Model Object: shift: .* use a value above 0"):
        make(shift)


def test_other_uses_of_the_model_are_refused_with_a_reason(make):
    with pytest.raises(AttributeError, match="no weights, and no 'clone': it only gives sigmas"):
        make().clone()
    with pytest.raises(AttributeError, match="no weights, and no 'latent_format'"):
        make().get_model_object("latent_format")
