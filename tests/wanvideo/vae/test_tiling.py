"""Tiles against the whole frame, and smaller tiles when memory runs out."""

import itertools
import logging

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.vae import Tiling
from comfyui_wanvideo.wanvideo.vae.tiling import LatentGrid, plan_spans

EXACT = 1e-5
# Largest deviation from the whole frame, relative to rms, at the nodes' default sizes. Random weights are
# a hard case: their influence falls off with distance more slowly than that of trained ones.
DECODE_DEFAULTS = {"2.1": 5e-3, "2.2": 1.5e-1}
ENCODE_DEFAULTS = {"2.1": 1e-3, "2.2": 5e-2}


def exact_tiling(vae, margin, tile_x, tile_y):
    """Tiles of so many latents with the overlap that makes the result exact."""
    stride = vae.spatial_stride
    return Tiling(
        tile_x * stride, tile_y * stride, (tile_x - 2 * margin) * stride, (tile_y - 2 * margin) * stride
    )


@pytest.mark.parametrize(("rows", "columns"), [(4, 34), (33, 5)])
def test_decode_in_tiles_with_enough_overlap_is_decode_of_the_whole(tiny, error, rows, columns):
    vae, latent = tiny.load(), tiny.latent(2, rows, columns)
    tiling = exact_tiling(vae, vae.module.render_margin, 30, 31)
    assert len(LatentGrid(rows, columns, vae.spatial_stride, 0).tiles(tiling)) == 2
    whole = vae.decode(latent, device="cpu")
    assert error(vae.decode(latent, device="cpu", tiling=tiling), whole) < EXACT


def test_encode_in_tiles_with_enough_overlap_is_encode_of_the_whole(tiny, error):
    vae, pixels = tiny.load(), tiny.pixels(5, rows=21, columns=22)
    tiling = exact_tiling(vae, vae.module.shrink_margin, 20, 20)
    whole = vae.encode(pixels, device="cpu")
    assert error(vae.encode(pixels, device="cpu", tiling=tiling), whole) < EXACT


def test_overlap_below_the_margin_is_not_exact(tiny, error):
    vae, latent = tiny.load(), tiny.latent(1, rows=8, columns=36)
    stride = vae.spatial_stride
    whole = vae.decode(latent, device="cpu")
    short = vae.decode(latent, device="cpu", tiling=Tiling(20 * stride, 8 * stride, 18 * stride, 8 * stride))
    assert error(short, whole) > EXACT


def test_decode_at_the_default_sizes_has_no_visible_seam(tiny, error):
    vae, latent = tiny.load(), tiny.latent(1, rows=36 if tiny.version == "2.1" else 20, columns=38)
    whole = vae.decode(latent, device="cpu")
    assert 0 < error(vae.decode(latent, device="cpu", tiling=Tiling()), whole) < DECODE_DEFAULTS[tiny.version]


def test_encode_at_the_default_sizes_has_no_visible_seam(tiny, error):
    vae, pixels = tiny.load(), tiny.pixels(1, rows=36 if tiny.version == "2.1" else 20, columns=38)
    whole = vae.encode(pixels, device="cpu")
    assert 0 < error(vae.encode(pixels, device="cpu", tiling=Tiling()), whole) < ENCODE_DEFAULTS[tiny.version]


def test_one_tile_is_the_whole_bit_for_bit(tiny):
    vae, latent = tiny.load(), tiny.latent(2)
    tiled = vae.decode(latent, device="cpu", tiling=Tiling(512, 512, 256, 256))
    assert torch.equal(tiled, vae.decode(latent, device="cpu"))


@pytest.mark.parametrize(
    ("tile", "stride", "margin"), [(34, 18, 13), (34, 16, 13), (17, 9, 13), (40, 14, 13)]
)
@pytest.mark.parametrize("length", [18, 35, 60, 104, 131])
def test_shares_of_the_tiles_sum_to_one_everywhere(length, tile, stride, margin):
    for scale in (1, 8):
        total = torch.zeros(length * scale)
        for span in plan_spans(length, tile, stride, margin=margin):
            total[span.start * scale : span.stop * scale] += span.weights(scale)
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", range(1, 131, 7))
def test_tiles_cover_the_axis_with_the_asked_size_and_overlap(length):
    spans = plan_spans(length, 34, 18, margin=13)
    assert (spans[0].start, spans[-1].stop) == (0, length)
    assert all(span.stop - span.start <= 34 for span in spans)
    overlaps = [earlier.stop - later.start for earlier, later in itertools.pairwise(spans)]
    assert all(overlap >= 34 - 18 for overlap in overlaps)


def test_x_is_width_and_y_is_height():
    tiles = LatentGrid(rows=20, columns=40, stride=8, margin=1).tiles(Tiling(160, 320, 160, 320))
    assert [(tile.columns.start, tile.rows.stop) for tile in tiles] == [(0, 20), (20, 20)]


@pytest.mark.parametrize("stride", [8, 16])
def test_tile_sizes_are_pixels_for_either_vae(stride):
    tile = LatentGrid(rows=100, columns=100, stride=stride, margin=0).tiles(Tiling(320, 480, 320, 480))[0]
    assert tile.columns.stop <= 320 // stride
    assert tile.rows.stop <= 480 // stride


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_stride_that_leaves_gaps_is_refused(axis):
    with pytest.raises(InputError, match=f"tile_stride_{axis}: 300 leaves gaps between tiles of 272"):
        Tiling(**{f"tile_stride_{axis}": 300})


class FailingVae:
    """Makes the first runs of a VAE's method fail as if memory had run out."""

    def __init__(self, monkeypatch, vae, method, errors):
        original, pending = getattr(vae.module, method), list(errors)

        def failing(*args):
            if pending:
                raise pending.pop(0)
            return original(*args)

        monkeypatch.setattr(vae.module, method, failing)


def test_decode_out_of_memory_runs_again_in_smaller_tiles_and_says_so(tiny, error, monkeypatch, caplog):
    vae, latent = tiny.load(), tiny.latent(2, rows=4, columns=34)
    whole = vae.decode(latent, device="cpu")
    FailingVae(monkeypatch, vae, "render", [torch.OutOfMemoryError("CUDA out of memory")])
    with caplog.at_level(logging.WARNING):
        retried = vae.decode(latent, device="cpu")
    tile = 17 * vae.spatial_stride
    assert f"out of memory in one piece; trying again in tiles of {tile}x{tile} px" in caplog.text
    assert error(retried, whole) < 0.1  # an overlap of half a tile: not exact, but the same picture


def test_encode_out_of_memory_runs_again_in_smaller_tiles(tiny, error, monkeypatch, caplog):
    vae, pixels = tiny.load(), tiny.pixels(5, rows=4, columns=40)
    whole = vae.encode(pixels, device="cpu")
    FailingVae(monkeypatch, vae, "shrink", [torch.OutOfMemoryError("CUDA out of memory")])
    with caplog.at_level(logging.WARNING):
        assert error(vae.encode(pixels, device="cpu"), whole) < 0.1  # an overlap of half a tile, not exact
    assert "trying again in tiles" in caplog.text


def test_each_failure_makes_the_tiles_smaller_until_the_error_stands(tiny21, monkeypatch, caplog):
    vae = tiny21.load()
    FailingVae(monkeypatch, vae, "render", [torch.OutOfMemoryError(f"no {n}") for n in range(9)])
    with caplog.at_level(logging.WARNING), pytest.raises(torch.OutOfMemoryError, match="no 2"):
        vae.decode(tiny21.latent(1, rows=4, columns=40), device="cpu")
    tried = [record.getMessage().rsplit(" in ", 1)[1] for record in caplog.records]
    assert tried == ["tiles of 160x160 px", "tiles of 128x128 px"]


def test_errors_the_predicate_names_count_as_out_of_memory(tiny21, error, monkeypatch):
    vae, latent = tiny21.load(), tiny21.latent(1, rows=4, columns=20)
    whole = vae.decode(latent, device="cpu")
    FailingVae(monkeypatch, vae, "render", [RuntimeError("device lost its memory")])
    found = vae.decode(latent, device="cpu", is_out_of_memory=lambda raised: "memory" in str(raised))
    assert error(found, whole) < 0.1  # an overlap of half a tile, not exact


def test_other_errors_are_not_retried(tiny21, monkeypatch):
    vae = tiny21.load()
    FailingVae(monkeypatch, vae, "render", [RuntimeError("something else")])
    with pytest.raises(RuntimeError, match="something else"):
        vae.decode(tiny21.latent(1, rows=4, columns=20), device="cpu")


def test_smaller_tiles_overlap_as_exactness_asks_where_that_leaves_half_a_tile():
    grid = LatentGrid(rows=90, columns=160, stride=8, margin=13)
    first = grid.smaller(None)
    assert first == Tiling(640, 640, (80 - 26) * 8, (80 - 26) * 8)
    assert grid.smaller(first) == Tiling(320, 320, 160, 160)
