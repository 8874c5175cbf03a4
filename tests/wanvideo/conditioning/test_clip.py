"""CLIP rows of several pictures, and what counts as CLIP rows."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_wanvideo.wanvideo.conditioning.clip import ClipEmbeds, as_clip_embeds, combine_rows, mix_tiles
from comfyui_wanvideo.wanvideo.errors import InputError

TOKENS, WIDTH = 5, 1280


def rows(count=2, width=WIDTH, seed=0):
    return torch.randn(count, TOKENS, width, generator=torch.Generator().manual_seed(seed))


def test_average_is_the_mean_of_the_weighted_rows():
    a, b = rows()
    found = combine_rows(rows(), "average", strengths=(0.3, 2.0))
    torch.testing.assert_close(found, ((0.3 * a + 2.0 * b) / 2)[None], rtol=1e-6, atol=1e-6)


def test_sum_adds_the_weighted_rows():
    a, b = rows()
    found = combine_rows(rows(), "sum", strengths=(0.3, 2.0))
    torch.testing.assert_close(found, (0.3 * a + 2.0 * b)[None], rtol=1e-6, atol=1e-6)


def test_concat_lays_the_rows_end_to_end():
    a, b = rows()
    found = combine_rows(rows(), "concat", strengths=(0.5, 2.0))
    assert torch.equal(found, torch.cat([0.5 * a, 2.0 * b])[None])


def test_batch_keeps_one_entry_per_picture():
    a, b = rows()
    found = combine_rows(rows(), "batch", strengths=(0.5, 2.0))
    assert torch.equal(found, torch.stack([0.5 * a, 2.0 * b]))


def test_pictures_beyond_the_strengths_count_once():
    given = rows(3)
    found = combine_rows(given, "batch", strengths=(0.5, 2.0))
    assert torch.equal(found[2], given[2])


@pytest.mark.parametrize("combination", ["average", "sum", "concat", "batch"])
def test_one_picture_is_only_weighted(combination):
    found = combine_rows(rows(1), combination, strengths=(0.5, 7.0))
    torch.testing.assert_close(found, 0.5 * rows(1), rtol=0, atol=0)


@pytest.mark.parametrize("combination", ["average", "sum", "concat", "batch"])
def test_strength_one_changes_nothing(combination):
    weighted = combine_rows(rows(), combination, strengths=(1.0, 1.0))
    assert torch.equal(weighted, combine_rows(rows(), combination))


def test_an_unknown_combination_is_refused():
    with pytest.raises(InputError, match=r"^combine_embeds: 'mean' is not one of average, sum"):
        combine_rows(rows(), "mean")


def test_tiles_of_several_pictures_are_mixed_in():
    whole, tiles = rows(), rows(seed=1)
    found = mix_tiles(whole, tiles, 0.3, as_pair=False)
    torch.testing.assert_close(found, 0.3 * whole + 0.7 * tiles, rtol=1e-6, atol=1e-6)


def test_tiles_of_one_picture_are_a_second_entry():
    whole, tiles = rows(1), rows(1, seed=1)
    found = mix_tiles(whole, tiles, 0.3, as_pair=True)
    assert torch.equal(found, torch.cat([0.3 * whole, tiles]))


def test_ratio_one_is_the_whole_picture_alone():
    assert torch.equal(mix_tiles(rows(), rows(seed=1), 1.0, as_pair=False), rows())


def test_our_embeds_pass_untouched():
    embeds = ClipEmbeds(rows(), rows(1))
    assert as_clip_embeds(embeds, "clip_embeds") is embeds


def test_the_dict_of_another_pack_is_read():
    found = as_clip_embeds({"clip_embeds": rows().half(), "negative_clip_embeds": rows(1)}, "clip_embeds")
    assert torch.equal(found.rows, rows().half().float())
    assert found.negative is not None
    assert torch.equal(found.negative, rows(1))


def test_a_dict_without_negative_has_none():
    assert as_clip_embeds({"clip_embeds": rows()}, "clip_embeds").negative is None


def test_of_a_core_output_the_last_but_one_layer_is_read():
    output = SimpleNamespace(penultimate_hidden_states=rows(), last_hidden_state=rows(seed=1))
    assert torch.equal(as_clip_embeds(output, "clip_embeds").rows, rows())


@pytest.mark.parametrize("value", [None, {}, {"clip_embeds": None}, "a string", object()])
def test_something_else_is_refused_with_the_fix(value):
    with pytest.raises(InputError, match=r"^clip_embeds: expected CLIP .*connect WanVideo ClipVision Encode"):
        as_clip_embeds(value, "clip_embeds")


def test_rows_of_another_encoder_are_named():
    output = SimpleNamespace(penultimate_hidden_states=rows(width=1024))
    with pytest.raises(InputError, match=r"1024 wide, the model reads 1280.*ViT-H"):
        as_clip_embeds(output, "clip_vision_output")


def test_negative_rows_of_another_width_are_refused():
    with pytest.raises(InputError, match="1024 wide"):
        as_clip_embeds(ClipEmbeds(rows(), rows(width=1024)), "clip_embeds")


def test_the_width_of_a_small_model_is_accepted_when_asked_for():
    assert as_clip_embeds(ClipEmbeds(rows(width=64)), "clip_embeds", width=64).rows.shape[-1] == 64


def test_rows_without_a_batch_are_refused_with_their_shape():
    with pytest.raises(InputError, match=r"expected CLIP rows \[B, tokens, 1280\], got \(5, 1280\)"):
        as_clip_embeds({"clip_embeds": rows()[0]}, "clip_embeds")
