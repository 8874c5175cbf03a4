"""CLIP rows in the passes of a run."""

from __future__ import annotations

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.clip import ClipEmbeds
from comfyui_wanvideo.wanvideo.conditioning.clip_input import ClipInput
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for

SETUP = RunSetup(
    WanConfig(256, 512, 2, 2, 36, 16, has_image_branch=True), VideoGeometry(48, 32, 5), latent_space_for(16)
)
POSITIVE, NEGATIVE = torch.ones(1, 257, 1280), torch.zeros(1, 257, 1280)


def test_passes_with_the_negative_prompt_read_the_negative_rows():
    value = ClipInput.of(ClipEmbeds(POSITIVE, NEGATIVE))
    assert value.variant(is_on=True, is_negative=False) is value
    negative = value.variant(is_on=True, is_negative=True)
    assert negative is not None
    assert negative.rows is NEGATIVE


def test_without_negative_rows_all_passes_read_the_same_object():
    value = ClipInput.of(ClipEmbeds(POSITIVE))
    assert value.variant(is_on=True, is_negative=True) is value


def test_a_pass_without_it_has_none():
    assert ClipInput.of(ClipEmbeds(POSITIVE)).variant(is_on=False, is_negative=False) is None


@pytest.mark.parametrize(
    "embeds", [ClipEmbeds(torch.ones(1, 257, 1024)), ClipEmbeds(POSITIVE, torch.ones(1, 9, 768))]
)
def test_rows_of_another_encoder_are_refused(embeds):
    with pytest.raises(InputError, match=r"clip_embeds: .*1280"):
        ClipInput.of(embeds).check(SETUP)


def test_a_window_reads_all_rows():
    value = ClipInput.of(ClipEmbeds(POSITIVE))
    assert value.window([0]) is value
